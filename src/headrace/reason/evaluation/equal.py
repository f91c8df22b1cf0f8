"""What a strategy is compared with: self-consistency for as many tokens as the strategy drew."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from headrace.reason.evaluation.curves import vote_at_k
from headrace.reason.evaluation.pooled import Question
from headrace.reason.evaluation.table import Rival, Row

VOTES = "the vote at the same tokens"
ITSELF = ("single", "self_consistency")
"""Strategies that are votes: what the others are compared with is made of the same pool."""


class Votes:
    """Votes among k of each question's pooled attempts, in exact expectation over which k.

    Between two whole k it is one or the other, by lot: so there is one for every number of tokens from an attempt's
    to the whole pool's.
    """

    def __init__(self, questions: Sequence[Question]) -> None:
        self._questions, self._right = questions, dict[int, np.ndarray]()
        self.most = min(len(question.samples) for question in questions)
        self.cost = float(np.mean([np.mean([one.tokens for one in question.samples]) for question in questions]))

    def beside(self, row: Row) -> Rival | None:
        """The vote of as many tokens as the row drew; beyond the pool the largest or the smallest there is.

        None for a row that is such a vote itself.
        """
        if self.cost == 0 or (row.source == "pool" and row.strategy.startswith(ITSELF)):
            return None
        k = min(max(row.mean("tokens") / self.cost, 1.0), float(self.most))
        whole, part = math.floor(k), k % 1
        right = (1 - part) * self._at(whole) + (part * self._at(whole + 1) if part else 0.0)
        items = (question.item for question in self._questions)
        return Rival(f"vote of {k:.3g}", k * self.cost, dict(zip(items, right.tolist(), strict=True)))

    def _at(self, k: int) -> np.ndarray:
        if k not in self._right:
            self._right[k] = np.array([vote_at_k(question, k) for question in self._questions])
        return self._right[k]
