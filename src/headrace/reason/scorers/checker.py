"""Exact checkers for synthetic tasks, as they are (an oracle) or with planted noise."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

from headrace.spec.reasoning import Score, Scored, ScorerKind

Check = Callable[[Scored], float]
"""1 for an attempt that is right so far, 0 for one that is not (or between)."""


@dataclass(frozen=True, slots=True)
class Checker:
    """`check` pushed through a logistic with normal noise of deviation `noise`; the same text scores the same.

    It knows the truth, so its runs are labelled `oracle` and stand apart; `sound` only without noise.
    """

    check: Check = field(compare=False)
    noise: float = 0.0
    seed: int = 0
    name: str = "checker"
    kind: ScorerKind = "exact"
    oracle: bool = True

    @property
    def sound(self) -> bool:
        return self.noise == 0

    async def score(self, items: Sequence[Scored]) -> list[Score]:
        return [Score(self._one(item)) for item in items]

    def _one(self, item: Scored) -> float:
        truth = self.check(item)
        if self.noise == 0:
            return truth
        logit = (2 * truth - 1) * 2 + self.noise * _normal(f"{self.seed}/{item.question}/{item.text}")
        return 1 / (1 + math.exp(-logit))


def _normal(text: str) -> float:
    digest = hashlib.sha256(text.encode()).digest()
    return NormalDist().inv_cdf((int.from_bytes(digest[:7], "big") + 0.5) / 2**56)
