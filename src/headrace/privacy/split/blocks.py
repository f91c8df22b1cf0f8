"""The server's side: the blocks after the first k, with the keys and values of a few sequences."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from headrace.privacy.split.cut import behind, check_depth
from headrace.privacy.split.piece import STEP, Piece
from headrace.spec.errors import ContextExceeded, HeadraceError, InvalidRequest
from headrace.spec.executor import WeightStore
from headrace.spec.model import ModelSpec


class StateLost(HeadraceError):
    """The server does not hold what comes before the states it was sent."""


class Upstream(Protocol):
    """Whatever runs the blocks in the middle: in this process, or behind a connection."""

    def run(self, sequence: str, start: int, states: np.ndarray) -> np.ndarray:
        """States float32 [n, hidden] of positions start, … of a sequence -> what the last block makes of them.

        Position 0 begins the sequence anew. Raises StateLost, ContextExceeded, InvalidRequest, EngineStopped.
        """
        ...

    def drop(self, sequence: str) -> None:
        """Forgets a sequence; one that is not held is none."""
        ...


@dataclass(slots=True)
class _Held:
    slot: int
    length: int = 0


class Blocks:
    """An Upstream. Of more than `slots` sequences the one that was used longest ago is forgotten. For one thread."""

    def __init__(
        self, spec: ModelSpec, weights: WeightStore, depth: int, slots: int = 4, context: int = 1024,
        threads: int | None = None,
    ) -> None:  # fmt: skip
        check_depth(spec, depth)
        self.hidden, self.depth, self.layers = spec.hidden, depth, len(spec.layers)
        self._piece = Piece(behind(spec, weights, depth, STEP), slots, context, threads)
        self.context = self._piece.context
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._free = list(range(slots))

    def run(self, sequence: str, start: int, states: np.ndarray) -> np.ndarray:
        self._check(start, states)
        held = self._of(sequence, start)
        self._held.move_to_end(sequence)
        out = self._piece.states(held.slot, start, states)
        held.length = start + len(states)
        return out

    def drop(self, sequence: str) -> None:
        if (held := self._held.pop(sequence, None)) is not None:
            self._free.append(held.slot)

    def close(self) -> None:
        self._piece.close()

    def _check(self, start: int, states: np.ndarray) -> None:
        if states.ndim != 2 or states.shape[1] != self.hidden or not len(states) or not np.isfinite(states).all():
            raise InvalidRequest(
                f"States of shape {list(states.shape)} cannot be run; send finite ones, [tokens, {self.hidden}].",
                "states",
            )
        if start < 0 or start + len(states) > self.context:
            raise ContextExceeded(
                f"The sequence would end at position {start + len(states)} of {self.context}; shorten it, or start the"
                " server with a longer --context."
            )

    def _of(self, sequence: str, start: int) -> _Held:
        held = self._held.get(sequence)
        known = 0 if held is None else held.length
        if start not in (0, known):
            raise StateLost(f"Position {start} came where {known} was due; begin the sequence again.")
        if held is None:
            if not self._free:
                self.drop(next(iter(self._held)))
            held = self._held[sequence] = _Held(self._free.pop())
        return held
