"""Reading a GGUF file: header by `struct`, tensors as views of one memory map.

The header is parsed here rather than by `gguf.GGUFReader`, which makes several numpy arrays for each of
the tens of thousands of vocabulary strings and takes seconds over what takes a tenth of one.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from headrace.model import ggml_types
from headrace.model.tensor import FLOAT_KINDS, Tensor, quant_size
from headrace.spec.errors import ModelFileError, UnsupportedModel

MAGIC = b"GGUF"
_AGAIN = "pull or download it again"
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_PART = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")
_FLOATS = {"F32": "f32", "F16": "f16", "BF16": "bf16", "F64": "f64"}


@dataclass(frozen=True, slots=True)
class GgufFile:
    """`metadata`: key -> str, number, bool or list. `tensors` by their name in the file.

    Of a model in parts `path` is the first one, `paths` all of them, and `size` the bytes of all.
    """

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, Tensor]
    size: int
    paths: tuple[Path, ...]

    @property
    def name(self) -> str:
        """The file's name without its ending and the number of its part."""
        return Path(_PART.sub(".gguf", self.path.name)).stem

    def need(self, key: str) -> Any:
        """A metadata value; raises ModelFileError where the file lacks it."""
        if key not in self.metadata:
            raise ModelFileError(f"{self.path.name} has no metadata key {key}; convert the model again.")
        return self.metadata[key]


def read_gguf(path: Path) -> GgufFile:
    """Opens a GGUF file (version 2 or 3, little endian) without reading its tensors; of one part also the others.

    Raises ModelFileError in one sentence for a missing, foreign or cut-off file.
    """
    found = _read(path)
    count = int(found.metadata.get("split.count", 1))
    return found if count <= 1 else _joined([_read(part) for part in _parts(path, count)])


def _parts(path: Path, count: int) -> list[Path]:
    name = _PART.search(path.name)
    if name is None or int(name[1]) != count:
        raise ModelFileError(
            f"{path.name} is one of {count} parts of a model; name it as it was, …-00001-of-{count:05}.gguf."
        )
    parts = [path.with_name(_PART.sub(f"-{n:05}-of-{count:05}.gguf", path.name)) for n in range(1, count + 1)]
    missing = next((part.name for part in parts if not part.is_file()), None)
    if missing:
        raise ModelFileError(f"{path.name} is one of {count} parts and lacks {missing} beside it; download that too.")
    return parts


def _joined(parts: list[GgufFile]) -> GgufFile:
    """The first part has the metadata."""
    tensors = {name: tensor for part in parts for name, tensor in part.tensors.items()}
    first, wanted = parts[0], parts[0].metadata.get("split.tensors.count")
    if wanted is not None and wanted != len(tensors):
        raise ModelFileError(f"{first.path.name} and its parts have {len(tensors)} of {wanted} tensors; {_AGAIN}.")
    paths = tuple(part.path for part in parts)
    return replace(first, tensors=tensors, size=sum(part.size for part in parts), paths=paths)


def _read(path: Path) -> GgufFile:
    try:
        with path.open("rb") as file:
            if file.read(4) != MAGIC:
                raise ModelFileError(f"{path.name} is not a GGUF file; give a .gguf file or a model folder.")
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read ({error.strerror}); check the path.") from None
    try:
        return _parse(path, view)
    except (struct.error, UnicodeDecodeError, OverflowError, MemoryError):
        raise ModelFileError(f"{path.name} is cut off or damaged in its header; {_AGAIN}.") from None


def _parse(path: Path, view: mmap.mmap) -> GgufFile:
    cursor = _Cursor(view, 4)
    version = cursor.scalar("<I")
    if version not in (2, 3):
        raise ModelFileError(f"{path.name} is GGUF version {version}, not 2 or 3; convert the model again.")
    tensor_count, key_count = cursor.scalar("<Q"), cursor.scalar("<Q")
    metadata: dict[str, Any] = {}
    for _ in range(key_count):
        key = cursor.string()
        metadata[key] = cursor.value(cursor.scalar("<I"))
    infos = [cursor.tensor_info() for _ in range(tensor_count)]
    alignment = int(metadata.get("general.alignment", 32))
    start = -(-cursor.at // alignment) * alignment
    tensors = {name: _tensor(path, view, start + offset, name, shape, kind) for name, shape, kind, offset in infos}
    return GgufFile(path, metadata, tensors, len(view), (path,))


def _tensor(path: Path, view: mmap.mmap, start: int, name: str, shape: tuple[int, ...], kind: str) -> Tensor:
    if kind in _FLOATS:
        kind = _FLOATS[kind]
        dtype, stored = np.dtype(FLOAT_KINDS[kind]), shape
    else:
        block, size = quant_size(kind)
        if not shape or shape[-1] % block:
            raise ModelFileError(f"{path.name} is damaged: tensor {name} of {kind} is not whole blocks; {_AGAIN}.")
        dtype, stored = np.dtype(np.uint8), (*shape[:-1], shape[-1] // block * size)
    count = math.prod(stored)
    if start + count * dtype.itemsize > len(view):
        raise ModelFileError(f"{path.name} is cut off: tensor {name} reaches beyond its end; {_AGAIN}.")

    def load() -> np.ndarray:
        return np.frombuffer(view, dtype, count, start).reshape(stored)

    return Tensor(name, shape, kind, load, mapped=True)


class _Cursor:
    """Reads the header's fields one after the other; struct.error at the end of the file."""

    def __init__(self, view: mmap.mmap, at: int) -> None:
        self.view, self.at = view, at

    def scalar(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self.view, self.at)
        self.at += struct.calcsize(form)
        return value

    def bytes(self, count: int) -> bytes:
        if self.at + count > len(self.view):
            raise struct.error
        self.at += count
        return self.view[self.at - count : self.at]

    def string(self) -> str:
        return self.bytes(self.scalar("<Q")).decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array(self.scalar("<I"), self.scalar("<Q"))
        if kind not in _SCALARS:
            raise struct.error
        return self.scalar(_SCALARS[kind])

    def array(self, kind: int, count: int) -> list[Any]:
        if kind == _STRING:
            return self.strings(count)
        if kind in _SCALARS:
            form = _SCALARS[kind]
            return np.frombuffer(self.bytes(count * struct.calcsize(form)), form.replace("?", "b1")).tolist()
        if count > len(self.view):
            raise struct.error
        return [self.value(kind) for _ in range(count)]

    def strings(self, count: int) -> list[str]:
        """The vocabulary's path: a loop without a call for each of up to 256 thousand strings."""
        view, at, length, out = self.view, self.at, struct.Struct("<Q").unpack_from, []
        for _ in range(count):
            (size,) = length(view, at)
            at += 8 + size
            if at > len(view):
                raise struct.error
            out.append(view[at - size : at].decode("utf-8"))
        self.at = at
        return out

    def tensor_info(self) -> tuple[str, tuple[int, ...], str, int]:
        name, dims = self.string(), self.scalar("<I")
        if dims > 8:
            raise struct.error
        shape = tuple(self.scalar("<Q") for _ in range(dims))[::-1]
        number, offset = self.scalar("<I"), self.scalar("<Q")
        if number not in ggml_types.NAMES:
            raise UnsupportedModel(
                f"Tensor {name} has the unknown weight type {number}; use a file of a type such as Q4_K or Q8_0."
            )
        return name, shape, ggml_types.NAMES[number], offset
