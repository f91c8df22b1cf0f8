"""A weight in the form its file stores it in, decoded only when asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from headrace.model import ggml_types
from headrace.spec.errors import UnsupportedModel

FLOAT_KINDS = {"f32": np.float32, "f16": np.float16, "bf16": np.uint16, "f64": np.float64}


class Tensor:
    """A named weight.

    `shape` counts values, outermost axis first. `kind` is a float kind (f32, f16, bf16, f64) or a ggml
    type name such as Q4_1. `stored()` gives the values as the file has them: an array of `shape` for a
    float kind (bf16 as uint16), else bytes of shape [..., bytes of a row]. Row selections are lazy and
    keep the stored form; `mapped` tells whether `stored()` is a view of a file map that copies nothing.
    """

    __slots__ = ("_load", "kind", "mapped", "name", "shape")

    def __init__(
        self, name: str, shape: Sequence[int], kind: str, load: Callable[[], np.ndarray], mapped: bool = False
    ) -> None:
        self.name, self.shape, self.kind, self.mapped = name, tuple(shape), kind, mapped
        self._load = load

    @classmethod
    def of(cls, name: str, array: np.ndarray) -> Tensor:
        """A float32 tensor that is held in memory."""
        held = np.ascontiguousarray(array, np.float32)
        return cls(name, held.shape, "f32", lambda: held)

    def __repr__(self) -> str:
        return f"Tensor({self.name!r}, {list(self.shape)}, {self.kind})"

    @property
    def is_float(self) -> bool:
        return self.kind in FLOAT_KINDS

    @property
    def nbytes(self) -> int:
        """Bytes of the stored form."""
        return math.prod(self.shape[:-1]) * row_bytes(self.kind, self.shape[-1]) if self.shape else 0

    def stored(self) -> np.ndarray:
        return self._load()

    def numpy(self) -> np.ndarray:
        """float32 values of `shape`; for f32 a view of the file map where that is possible."""
        return decode(self.stored(), self.kind).reshape(self.shape)

    def renamed(self, name: str) -> Tensor:
        return Tensor(name, self.shape, self.kind, self._load, self.mapped)

    def rows(self, start: int, stop: int, axis: int = 0) -> Tensor:
        """Rows [start, stop) of an axis (any but the last of a quantised tensor)."""
        self._may_select(axis)
        shape = (*self.shape[:axis], stop - start, *self.shape[axis + 1 :])
        where = (slice(None),) * axis + (slice(start, stop),)
        return Tensor(self.name, shape, self.kind, lambda: self.stored()[where], self.mapped)

    def take(self, index: np.ndarray) -> Tensor:
        """Rows `index` of the first axis, in that order."""
        self._may_select(0)
        shape = (len(index), *self.shape[1:])
        return Tensor(self.name, shape, self.kind, lambda: self.stored()[index])

    def at(self, index: int) -> Tensor:
        """Entry `index` of the first axis, without that axis."""
        return Tensor(self.name, self.shape[1:], self.kind, lambda: self.stored()[index], self.mapped)

    def transpose(self) -> Tensor:
        """The last two axes swapped; a quantised tensor is decoded for it."""
        shape = (*self.shape[:-2], self.shape[-1], self.shape[-2])
        if self.is_float:
            return Tensor(self.name, shape, self.kind, lambda: self.stored().swapaxes(-1, -2), self.mapped)
        return Tensor(self.name, shape, "f32", lambda: self.numpy().swapaxes(-1, -2))

    def shift(self, by: float) -> Tensor:
        """Every value plus `by`, as float32."""
        return Tensor(self.name, self.shape, "f32", lambda: self.numpy() + np.float32(by))

    def _may_select(self, axis: int) -> None:
        if not self.is_float and axis >= len(self.shape) - 1:
            raise ValueError(f"{self.name}: a block of {self.kind} cannot be cut along its last axis")


def stack(name: str, parts: Sequence[Tensor]) -> Tensor:
    """[len(parts), ...]: tensors of one shape on top of each other; of one kind unless decoded to f32."""
    kinds, shape = {part.kind for part in parts}, (len(parts), *parts[0].shape)
    if len(kinds) == 1:
        return Tensor(name, shape, parts[0].kind, lambda: np.stack([part.stored() for part in parts]))
    return Tensor(name, shape, "f32", lambda: np.stack([part.numpy() for part in parts]))


def row_bytes(kind: str, values: int) -> int:
    """Bytes of a row of `values` values."""
    if kind in FLOAT_KINDS:
        return values * np.dtype(FLOAT_KINDS[kind]).itemsize
    block, size = quant_size(kind)
    return values // block * size


def quant_size(kind: str) -> tuple[int, int]:
    """(values, bytes) of one block of a ggml type. Raises UnsupportedModel for a type nobody here can read."""
    if kind not in ggml_types.BLOCKS:
        raise UnsupportedModel(f"Weight type {kind} is unknown; use a file of a type such as Q4_K or Q8_0.")
    return ggml_types.BLOCKS[kind]


def decode(stored: np.ndarray, kind: str) -> np.ndarray:
    """Stored form -> float32. Quantised rows are bytes: [..., bytes of a row] -> [..., values]."""
    if kind == "f32":
        return stored
    if kind == "bf16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    if kind in FLOAT_KINDS:
        return stored.astype(np.float32)
    return _dequantise(stored.reshape(-1, stored.shape[-1]), kind).reshape(*stored.shape[:-1], -1)


def _dequantise(rows: np.ndarray, kind: str) -> np.ndarray:
    from gguf import quants
    from gguf.constants import GGMLQuantizationType

    try:
        return quants.dequantize(rows, GGMLQuantizationType[kind])
    except (KeyError, NotImplementedError):  # the package does not know the type, or not how to decode it
        raise UnsupportedModel(
            f"Weight type {kind} cannot be decoded here; use a file of a type such as Q4_K or Q8_0."
        ) from None
