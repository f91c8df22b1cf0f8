"""Brings a model's weights into torch, under the ledger."""

from __future__ import annotations

import math
import platform
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

from headrace.spec.executor import WeightStore
from headrace.spec.program import Embed, Head, Matmul, Operation

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class PackedMatrix:
    """A float32 weight [out, in] in oneDNN's blocked layout: faster than plain storage for a few rows at a time.

    The layout suits one row count, `rows`; products with another count are right but slower.
    """

    def __init__(self, weight: torch.Tensor, rows: int) -> None:
        self.shape, self.dtype = weight.shape, weight.dtype
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [tokens, in] -> x @ weight.T [tokens, out]."""
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), self._packed, None, "none", [], "")
        return product


Matrix: TypeAlias = torch.Tensor | PackedMatrix


def linear(x: torch.Tensor, weight: Matrix, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x [tokens, in] -> x @ weight.T (+ bias) [tokens, out]."""
    y = x @ weight.t() if isinstance(weight, torch.Tensor) else weight(x)
    return y if bias is None else y + bias


Weights: TypeAlias = Mapping[str, Any]
"""Canonical name -> tensor; a packed matrix stands under its name with PACKED behind it."""

PACKED = " packed"


def matrix(weights: Weights, name: str) -> Matrix:
    """The form of a weight that products use."""
    found: Matrix = weights.get(name + PACKED)
    return weights[name] if found is None else found


def can_pack(dtype: torch.dtype) -> bool:
    return (
        dtype == torch.float32
        and platform.machine().lower() in ("x86_64", "amd64")
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


@dataclass(frozen=True, slots=True)
class WeightPlan:
    """What will be loaded in which form: `packed` names as PackedMatrix for `rows`, `plain` ones as tensors."""

    leased: Mapping[str, Any]
    packed: frozenset[str]
    plain: frozenset[str]
    dtype: torch.dtype
    rows: int

    @property
    def nbytes(self) -> int:
        """Anonymous bytes of the loaded weights: float32 file maps are used as they are."""
        plain = {name: self.leased[name] for name in self.plain if not _shared(self.leased[name], self.dtype)}
        return resident_bytes({name: self.leased[name] for name in self.packed}, self.dtype) + resident_bytes(
            plain, self.dtype
        )

    @property
    def passing(self) -> int:
        """Bytes of the largest weight that lives for a moment beside its final form."""
        passing = self.leased if self.dtype != torch.float32 else {name: self.leased[name] for name in self.packed}
        return max((4 * math.prod(tensor.shape) for tensor in passing.values()), default=0)

    def load(self) -> dict[str, Any]:
        """Canonical name -> tensor; packed matrices under their name with PACKED behind it."""
        loaded: dict[str, Any] = {}
        for name, tensor in self.leased.items():
            values = _to_torch(tensor.numpy(), self.dtype)
            if name in self.packed:
                loaded[name + PACKED] = PackedMatrix(values, self.rows)
            if name in self.plain:
                loaded[name] = values
        return loaded


def plan_weights(
    store: WeightStore, operations: Sequence[Operation], dtype: torch.dtype, rows: int | None = None
) -> WeightPlan:
    """Decides the forms; with `rows` matrices are packed for that row count where the machine can."""
    leased = store.lease(operations)
    packed = {op.weight for op in operations if isinstance(op, Matmul | Head)} if rows and can_pack(dtype) else set()
    tables = {op.table for op in operations if isinstance(op, Embed)}
    return WeightPlan(leased, frozenset(packed), frozenset((leased.keys() - packed) | tables), dtype, rows or 1)


def resident_bytes(tensors: Mapping[str, Any], dtype: torch.dtype) -> int:
    return sum(math.prod(tensor.shape) * dtype.itemsize for tensor in tensors.values())


def _shared(tensor: Any, dtype: torch.dtype) -> bool:
    if not tensor.mapped or tensor.kind != "f32" or dtype != torch.float32:
        return False
    return bool(tensor.numpy().flags.c_contiguous)


def _to_torch(array: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    with warnings.catch_warnings():
        # A file map is read-only, and inference never writes to a weight.
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).to(dtype)
