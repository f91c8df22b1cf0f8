"""Reading a Hugging Face folder: config.json and safetensors shards, by memory map and without torch."""

from __future__ import annotations

import json
import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headrace.model.tensor import FLOAT_KINDS, Tensor
from headrace.spec.errors import ModelFileError, UnsupportedModel

_KINDS = {"F32": "f32", "F16": "f16", "BF16": "bf16", "F64": "f64"}
_IGNORED_KINDS = {"I64", "I32", "U8", "BOOL"}
"""Buffers such as position ids and causal masks, which older checkpoints carry."""


@dataclass(frozen=True, slots=True)
class Folder:
    """`config`: config.json. `tensors` of all shards by name. `generation`: generation_config.json or {}."""

    path: Path
    config: dict[str, Any]
    generation: dict[str, Any]
    tensors: dict[str, Tensor]
    files: tuple[tuple[str, int], ...]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or ModelFileError in one sentence."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read ({error.strerror}); check the path.") from None
    except ValueError:
        raise ModelFileError(f"{path} is not valid JSON; download it again.") from None
    if not isinstance(value, dict):
        raise ModelFileError(f"{path} is not a JSON object; download it again.")
    return value


def read_folder(path: Path) -> Folder:
    """Opens a folder in the layout of `save_pretrained` without reading its tensors. Raises ModelFileError."""
    if not (path / "config.json").is_file():
        raise ModelFileError(f"{path} has no config.json; give a .gguf file or a Hugging Face model folder.")
    generation = path / "generation_config.json"
    tensors: dict[str, Tensor] = {}
    files = []
    for shard in _shards(path):
        found, size = read_safetensors(shard)
        tensors |= found
        files.append((shard.name, size))
    generated = read_json(generation) if generation.is_file() else {}
    return Folder(path, read_json(path / "config.json"), generated, tensors, tuple(files))


def _shards(path: Path) -> list[Path]:
    index = path / "model.safetensors.index.json"
    if index.is_file():
        names = read_json(index).get("weight_map")
        if not isinstance(names, dict):
            raise ModelFileError(f"{index} has no weight_map; download it again.")
        shards = [path / name for name in sorted(set(names.values()))]
        missing = [shard.name for shard in shards if not shard.is_file()]
        if missing:
            raise ModelFileError(f"{path} lacks the shards {', '.join(missing)}; download them.")
        return shards
    found = sorted(path.glob("*.safetensors"))
    if not found:
        raise ModelFileError(f"{path} has no .safetensors file; convert its weights to safetensors first.")
    return found


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], int]:
    """Tensors of one safetensors file as views of its memory map, and the file's size."""
    try:
        with path.open("rb") as file:
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        raise ModelFileError(f"{path} cannot be read or is empty; download it again.") from None
    length = int.from_bytes(view[:8], "little")
    try:
        if len(view) < 8 or length > len(view) - 8:
            raise ValueError
        header = json.loads(view[8 : 8 + length])
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        tensors = {name: _tensor(path, view, 8 + length, name, entry) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ModelFileError(f"{path.name} is not a safetensors file or is cut off; download it again.") from None
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}, len(view)


def _tensor(path: Path, view: mmap.mmap, base: int, name: str, entry: dict[str, Any]) -> Tensor | None:
    if entry["dtype"] in _IGNORED_KINDS:
        return None
    if entry["dtype"] not in _KINDS:
        raise UnsupportedModel(
            f"Tensor {name} of {path.name} has type {entry['dtype']}; use a checkpoint in F32, F16 or BF16."
        )
    kind, shape = _KINDS[entry["dtype"]], tuple(int(n) for n in entry["shape"])
    dtype, count = np.dtype(FLOAT_KINDS[kind]), math.prod(shape)
    start, stop = entry["data_offsets"]
    if stop - start != count * dtype.itemsize or base + stop > len(view):
        raise ModelFileError(f"{path.name} is cut off: tensor {name} reaches beyond its end; download it again.")

    def load() -> np.ndarray:
        return np.frombuffer(view, dtype, count, base + start).reshape(shape)

    return Tensor(name, shape, kind, load, mapped=True)
