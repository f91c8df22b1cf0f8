"""What a model's files are, told quickly: the key of everything that is derived from them and kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from headrace.model.tensor import Tensor

_END = 2**20


def identity(files: Sequence[Path], tensors: Mapping[str, Tensor]) -> str | None:
    """Hex digest that changes when the weights in `files` change; None where a file cannot be read any more.

    To hash gigabytes at every start would take longer than loading, so this takes what changes with them:
    every file's size, time of change (ns), first and last MiB, and the tensors' names, kinds and shapes. The
    path does not enter: a file that is moved keeps its identity.
    """
    digest = hashlib.sha256(json.dumps([(name, t.kind, t.shape) for name, t in sorted(tensors.items())]).encode())
    try:
        for path in files:
            with path.open("rb") as file:
                stat = os.fstat(file.fileno())
                digest.update(f"{stat.st_size} {stat.st_mtime_ns}\n".encode() + file.read(_END))
                file.seek(max(stat.st_size - _END, 0))
                digest.update(file.read())
    except OSError:
        return None
    return digest.hexdigest()
