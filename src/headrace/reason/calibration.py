"""Scores into probabilities, by monotone regression on samples whose outcome is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headrace.spec.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Isotonic:
    """A non-decreasing map from score to probability; straight between its knots, flat beyond them."""

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __call__(self, score: float) -> float:
        return float(np.interp(score, self.scores, self.probabilities))


def fit_isotonic(scores: Sequence[float], outcomes: Sequence[float]) -> Isotonic:
    """The non-decreasing least-squares fit by pooling adjacent violators (Ayer et al. 1955).

    Raises InvalidRequest without a pair, or for scores and outcomes of different number.
    """
    if not len(scores) or len(scores) != len(outcomes):
        raise InvalidRequest("A calibration needs as many outcomes as scores; give at least one pair.", "outcomes")
    knots, place = np.unique(np.asarray(scores, dtype=np.float64), return_inverse=True)
    counts = np.bincount(place).astype(np.float64)
    sums = np.bincount(place, np.asarray(outcomes, dtype=np.float64))
    blocks: list[tuple[float, float, int]] = []
    for total, count in zip(sums.tolist(), counts.tolist(), strict=True):
        block = (total, count, 1)
        while blocks and blocks[-1][0] / blocks[-1][1] >= block[0] / block[1]:
            before = blocks.pop()
            block = (before[0] + block[0], before[1] + block[1], before[2] + block[2])
        blocks.append(block)
    levels = [total / count for total, count, width in blocks for _ in range(width)]
    return Isotonic(tuple(knots.tolist()), tuple(levels))
