"""The rotary tables of a model, looked up by position."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from headrace.backends.rotary import distinct_ropes, rope_table
from headrace.spec.model import Rope
from headrace.spec.program import Operation


class RotaryTables:
    """Every table up to `length` positions, filled when it is made; reading never computes."""

    def __init__(self, operations: Iterable[Operation], length: int) -> None:
        self._tables = {
            rope: tuple(torch.from_numpy(table) for table in rope_table(rope, length))
            for rope in distinct_ropes(operations)
        }

    def at(self, rope: Rope, positions_t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """cos, sin [tokens, 1, dim / 2] of the given positions."""
        cos, sin = self._tables[rope]
        return cos[positions_t].unsqueeze(1), sin[positions_t].unsqueeze(1)
