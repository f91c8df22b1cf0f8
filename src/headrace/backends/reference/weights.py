"""Brings a model's weights into torch, under the ledger."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from headrace.spec.executor import WeightStore
from headrace.spec.ledger import Ledger, Reservation
from headrace.spec.program import Operation

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load_weights(
    store: WeightStore, operations: Sequence[Operation], dtype: torch.dtype, ledger: Ledger
) -> tuple[dict[str, torch.Tensor], list[Reservation]]:
    """Canonical name -> tensor of the run's type, and what was reserved for them.

    float32 file maps are used as they are; everything else is decoded once. Raises PlanRejected
    before anything is decoded when the ledger has no room.
    """
    leased = store.lease(operations)
    decoded = {name: tensor for name, tensor in leased.items() if not _shared(tensor, dtype)}
    held = [ledger.reserve("weights", "weights", resident_bytes(decoded, dtype))] if decoded else []
    transient = None
    if decoded and dtype != torch.float32:
        largest = max(4 * math.prod(tensor.shape) for tensor in decoded.values())
        transient = ledger.reserve("weights", "decoding buffer", largest)
    loaded = {name: _to_torch(tensor.numpy(), dtype) for name, tensor in leased.items()}
    if transient is not None:
        ledger.release(transient)
    return loaded, held


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
