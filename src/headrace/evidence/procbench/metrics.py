"""ProcBench's scores of a predicted sequence of states against the gold one (Fujisawa et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Score:
    """`prefix_length`: states that match before the first mismatch; the rest lie in [0, 1]."""

    prefix_length: int
    prefix_accuracy: float
    sequential_match: bool
    final_match: bool


def score(gold: Sequence[str], predicted: Sequence[str | None]) -> Score:
    """Prefix accuracy is prefix length over the longer of both; sequential match asks for all of it.

    States are compared as they are (normalise first); None, a missing state, matches nothing.
    """
    matched = 0
    for want, got in zip(gold, predicted, strict=False):
        if want != got:
            break
        matched += 1
    longest = max(len(gold), len(predicted))
    accuracy = matched / longest if longest else 1.0
    final = bool(gold) and bool(predicted) and gold[-1] == predicted[-1]
    return Score(matched, accuracy, accuracy == 1.0, final)
