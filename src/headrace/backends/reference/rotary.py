"""Tables of cos and sin, one for each distinct Rope of a model."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from headrace.spec.model import Rope
from headrace.spec.program import Operation, Rotate
from headrace.spec.rope import rope_amplitude, rope_frequencies


def distinct_ropes(operations: Iterable[Operation]) -> tuple[Rope, ...]:
    return tuple(dict.fromkeys(op.rope for op in operations if isinstance(op, Rotate)))


def table_bytes(ropes: Iterable[Rope], length: int) -> int:
    return sum(4 * length * rope.dim for rope in ropes)


def rope_table(rope: Rope, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """cos, sin [length, dim / 2] float32, computed in double precision."""
    positions = np.arange(length, dtype=np.float64)
    plain = np.asarray(rope_frequencies(rope, 0))
    angles = positions[:, None] * plain
    if rope.scaling == "dynamic":
        for position in range(rope.original, length):
            angles[position] = position * np.asarray(rope_frequencies(rope, position + 1))
    amplitude = rope_amplitude(rope)
    cos, sin = (np.cos(angles) * amplitude, np.sin(angles) * amplitude)
    return torch.from_numpy(cos.astype(np.float32)), torch.from_numpy(sin.astype(np.float32))


class RotaryTables:
    """Every table up to `length` positions, filled when it is made; reading never computes."""

    def __init__(self, operations: Iterable[Operation], length: int) -> None:
        self._tables = {rope: rope_table(rope, length) for rope in distinct_ropes(operations)}

    def at(self, rope: Rope, positions_t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """cos, sin [tokens, 1, dim / 2] of the given positions."""
        cos, sin = self._tables[rope]
        return cos[positions_t].unsqueeze(1), sin[positions_t].unsqueeze(1)
