"""What passes between processes over a pipe: a line of JSON, then the bytes of the arrays that it names."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import IO, Any

import numpy as np


def send(pipe: IO[bytes], message: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> None:
    """Writes a message and arrays of any shape. Raises OSError where nobody reads any more."""
    held = {name: np.ascontiguousarray(array) for name, array in (arrays or {}).items()}
    told = [[name, array.dtype.str, list(array.shape)] for name, array in held.items()]
    pipe.write(json.dumps({"message": message, "arrays": told}).encode() + b"\n")
    for array in held.values():
        pipe.write(array.reshape(-1).view(np.uint8).data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The next message and its arrays. Raises EOFError where the other side has ended."""
    line = pipe.readline()
    if not line:
        raise EOFError
    told = json.loads(line)
    arrays = {}
    for name, kind, shape in told["arrays"]:
        size = np.dtype(kind).itemsize * math.prod(shape)
        content = bytearray(size)
        if pipe.readinto(content) != size:  # type: ignore[attr-defined]
            raise EOFError
        arrays[name] = np.frombuffer(content, kind).reshape(shape)
    return told["message"], arrays
