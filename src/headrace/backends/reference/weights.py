"""Brings a model's weights into torch, under the ledger."""

from __future__ import annotations

import math
import platform
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

from headrace.spec.executor import WeightStore
from headrace.spec.ledger import Ledger, Reservation
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


def load_weights(
    store: WeightStore, operations: Sequence[Operation], dtype: torch.dtype, ledger: Ledger, rows: int | None = None
) -> tuple[dict[str, Any], list[Reservation]]:
    """Weights of the run's type by name, and what was reserved for them.

    float32 file maps are used as they are, everything else is decoded once; with `rows` matrices are
    packed for that row count where the machine can. Raises PlanRejected before anything is decoded
    when the ledger has no room.
    """
    leased = store.lease(operations)
    packed = {op.weight for op in operations if isinstance(op, Matmul | Head)} if rows and can_pack(dtype) else set()
    plain = (leased.keys() - packed) | {op.table for op in operations if isinstance(op, Embed)}
    nbytes = resident_bytes({name: leased[name] for name in packed}, dtype)
    nbytes += resident_bytes({name: leased[name] for name in plain if not _shared(leased[name], dtype)}, dtype)
    held = [ledger.reserve("weights", "weights", nbytes)] if nbytes else []
    transient = ledger.reserve("weights", "decoding buffer", _largest_decoded(leased, packed, dtype))
    loaded: dict[str, Any] = {}
    for name, tensor in leased.items():
        values = _to_torch(tensor.numpy(), dtype)
        if name in packed:
            loaded[name + PACKED] = PackedMatrix(values, rows or 1)
        if name in plain:
            loaded[name] = values
    ledger.release(transient)
    return loaded, held


def _largest_decoded(leased: Mapping[str, Any], packed: set[str], dtype: torch.dtype) -> int:
    """Bytes of the largest weight that lives for a moment beside its final form."""
    passing = leased if dtype != torch.float32 else {name: leased[name] for name in packed}
    return max((4 * math.prod(tensor.shape) for tensor in passing.values()), default=0)


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
