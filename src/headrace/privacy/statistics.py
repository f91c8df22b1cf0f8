"""What attacks and audits count with: estimates with their intervals, rows to fit, log-probabilities of logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95 % interval; a format is that of all three, as in f"{estimate:+.3f}"."""

    value: float
    low: float
    high: float

    def __format__(self, form: str) -> str:
        return f"{self.value:{form}} [{self.low:{form}}, {self.high:{form}}]" if form else str(self)


def middle(values: np.ndarray) -> tuple[float, float]:
    """What 95 % of a statistic's bootstrap values lie between."""
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def with_ones(rows: np.ndarray) -> np.ndarray:
    """Rows with a one behind each, for the intercept of what is fitted to them: [n, d] -> float64 [n, d + 1]."""
    return np.hstack([rows.astype(np.float64), np.ones((len(rows), 1))])


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    found: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return found
