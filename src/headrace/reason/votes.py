"""Votes, and shares of a frontier."""

from __future__ import annotations

import math
from collections.abc import Sequence


def stopping_confidence(votes: Sequence[float]) -> float:
    """The probability that the leading answer stays ahead of the second (2305.11860)."""
    ordered = sorted(votes, reverse=True)
    first, second = (int(ordered[i]) if i < len(ordered) else 0 for i in range(2))
    n = first + second + 1
    return 1 - sum(math.comb(n, j) for j in range(first + 1, n + 1)) / 2**n


def rebase_shares(values: Sequence[float], places: int, temperature: float) -> list[int]:
    """Children of each in proportion to a softmax (2408.00724)."""
    top = max(values)
    weights = [math.exp((value - top) / temperature) for value in values]
    return [round(places * weight / sum(weights)) for weight in weights]
