"""Adapters in torch: what they add to the rows of a tile that have one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headrace.backends.reference.weights import Matrix, PackedMatrix, can_pack, linear
from headrace.spec.adapter import Adapter
from headrace.spec.batch import Batch


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """`targets`: weight -> a [rank, inputs], b [outputs, rank], scale; float32 whatever the run's type."""

    targets: Mapping[str, tuple[Matrix, Matrix, float]]

    @classmethod
    def of(cls, adapter: Adapter, row_tile: int | None) -> LoadedAdapter:
        return cls(
            {
                weight: (_matrix(target.a, row_tile), _matrix(target.b, row_tile), target.scale)
                for weight, target in adapter.targets.items()
            }
        )

    def matrices(self) -> Iterator[Matrix]:
        for a, b, _ in self.targets.values():
            yield a
            yield b


AdaptedRows = tuple[LoadedAdapter, Tensor]
"""An adapter, and its strength [rows, 1] for each row of a tile: 0 for those that do not have it."""


def adapted(rows: tuple[AdaptedRows, ...], weight: str, x: Tensor, y: Tensor) -> Tensor:
    """y, and for the rows that have an adapter of `weight` also strength * scale * b @ (a @ x).

    The products take all rows of the tile: their number is fixed, so that a row's bits are its own.
    """
    for adapter, strength in rows:
        if (target := adapter.targets.get(weight)) is not None:
            a, b, scale = target
            added = linear(linear(x.float(), a) * (strength * scale), b)
            y = torch.where(strength != 0, (y.float() + added).to(y.dtype), y)
    return y


def strengths(batch: Batch, padded: int) -> dict[str, Tensor]:
    """Adapter -> its strength for each of a step's rows of buffers, [padded tokens, 1]."""
    found: dict[str, Tensor] = {}
    at = 0
    for row in batch.rows:
        if row.adapter is not None and row.adapter_scale != 0:
            found.setdefault(row.adapter, torch.zeros(padded, 1))[at : at + len(row.tokens)] = row.adapter_scale
        at += len(row.tokens)
    return found


def adapter_bytes(adapter: Adapter) -> int:
    return sum(4 * (target.a.size + target.b.size) for target in adapter.targets.values())


def _matrix(values: np.ndarray, row_tile: int | None) -> Matrix:
    weight = torch.from_numpy(np.array(values, np.float32))
    return PackedMatrix(weight, row_tile) if row_tile and can_pack(torch.float32) else weight
