"""A low-rank adapter: what it adds to a model's products (LoRA, arXiv 2106.09685)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

MOST_STRENGTH = 100
"""Largest magnitude of a request's strength."""


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """Adds strength * scale * b @ (a @ x) to a product's output; the strength is each request's own.

    `a` [rank, inputs] and `b` [outputs, rank] float32; `scale` is alpha / rank (rank-stabilised: alpha / sqrt(rank)).
    """

    a: np.ndarray
    b: np.ndarray
    scale: float

    @property
    def rank(self) -> int:
        return int(self.a.shape[0])


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """`targets`: canonical name of a product's weight (`layers.N.attn.q.weight`) -> what is added there."""

    name: str
    targets: Mapping[str, LowRank]

    @property
    def rank(self) -> int:
        """The largest of all targets."""
        return max((target.rank for target in self.targets.values()), default=0)

    @property
    def nbytes(self) -> int:
        return sum(target.a.nbytes + target.b.nbytes for target in self.targets.values())

    def digest(self) -> str:
        """Hex SHA-256 of everything that decides what it computes; the name does not."""
        found = hashlib.sha256()
        for weight, target in sorted(self.targets.items()):
            found.update(f"{weight} {target.a.shape} {target.b.shape} {target.scale!r}\n".encode())
            for matrix in (target.a, target.b):
                found.update(np.ascontiguousarray(matrix, np.float32).data)
        return found.hexdigest()
