"""Writes safetensors files tensor by tensor: sizes are known beforehand, values pass through once."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from headrace.privacy.veil.errors import SymmetryError
from headrace.privacy.veil.published import FileTensor

Kind: TypeAlias = Literal["f32", "bf16", "f16"]
SHARD = 4 * 2**30
"""Bytes of a shard, where a tensor is not larger by itself."""

_NAMES = {"f32": "F32", "bf16": "BF16", "f16": "F16"}
Fill: TypeAlias = Callable[[FileTensor], Iterator[np.ndarray]]
"""The values of a tensor in float64, in the order in which a file stores them."""


@dataclass(frozen=True, slots=True)
class Shard:
    name: str
    tensors: tuple[FileTensor, ...]


def cut(tensors: Sequence[FileTensor], kind: Kind, limit: int = SHARD) -> list[Shard]:
    """Shards of at most `limit` bytes, named as published checkpoints are."""
    groups: list[list[FileTensor]] = [[]]
    size = 0
    for tensor in tensors:
        nbytes = math.prod(tensor.shape) * value_bytes(kind)
        if groups[-1] and size + nbytes > limit:
            groups.append([])
            size = 0
        groups[-1].append(tensor)
        size += nbytes
    if len(groups) == 1:
        return [Shard("model.safetensors", tuple(groups[0]))]
    count = len(groups)
    return [
        Shard(f"model-{number:05}-of-{count:05}.safetensors", tuple(group)) for number, group in enumerate(groups, 1)
    ]


def index_of(shards: Sequence[Shard], kind: Kind) -> dict[str, object]:
    """model.safetensors.index.json."""
    places = {tensor.name: shard.name for shard in shards for tensor in shard.tensors}
    total = sum(math.prod(tensor.shape) for shard in shards for tensor in shard.tensors) * value_bytes(kind)
    return {"metadata": {"total_size": total}, "weight_map": places}


def write_shard(folder: Path, shard: Shard, kind: Kind, fill: Fill) -> str:
    """Writes one shard and returns the hex SHA-256 of the file."""
    digest = hashlib.sha256()
    with (folder / shard.name).open("wb") as file:
        head = _header(shard, kind)
        digest.update(head)
        file.write(head)
        for tensor in shard.tensors:
            for values in fill(tensor):
                data = stored(values, kind, tensor.name).tobytes()
                digest.update(data)
                file.write(data)
    return digest.hexdigest()


def _header(shard: Shard, kind: Kind) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in shard.tensors:
        end = at + math.prod(tensor.shape) * value_bytes(kind)
        entries[tensor.name] = {"dtype": _NAMES[kind], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def value_bytes(kind: Kind) -> int:
    return 4 if kind == "f32" else 2


def stored(values: np.ndarray, kind: Kind, name: str) -> np.ndarray:
    """float64 values in the stored kind, to the nearest. Raises SymmetryError where half precision overflows."""
    if kind == "f32":
        return values.astype("<f4")
    if kind == "f16":
        if np.abs(values).max(initial=0.0) > np.finfo(np.float16).max:
            raise SymmetryError(f"{name} has values beyond half precision; export with --dtype bf16 or f32.")
        return values.astype("<f2")
    bits = values.astype("<f4").view("<u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
