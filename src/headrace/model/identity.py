"""What a model's files are, told quickly: the key of everything that is derived from them and kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from headrace.model.tensor import Tensor

_START = 2**20
_PIECES, _PIECE = 256, 4096


def identity(files: Sequence[Path], tensors: Mapping[str, Tensor]) -> str | None:
    """Hex digest that changes when the weights in `files` change; None where a file cannot be read any more.

    To hash gigabytes at every start would take longer than loading, so this takes what changes with them:
    every file's size, time of change (ns), first MiB and 256 pieces of 4 KiB evenly over all of it, and the
    tensors' names, kinds and shapes. The path does not enter: a file that is moved keeps its identity.
    """
    digest = hashlib.sha256(json.dumps([(name, t.kind, t.shape) for name, t in sorted(tensors.items())]).encode())
    try:
        for path in files:
            with path.open("rb") as file:
                stat = os.fstat(file.fileno())
                digest.update(f"{stat.st_size} {stat.st_mtime_ns}\n".encode() + file.read(_START))
                for piece in range(_PIECES):
                    file.seek(max(stat.st_size - _PIECE, 0) * piece // (_PIECES - 1))
                    digest.update(file.read(_PIECE))
    except OSError:
        return None
    return digest.hexdigest()
