"""Intervals for measured effects."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from statistics import fmean

RESAMPLES = 2000


def bootstrap(
    values: Sequence[float], statistic: Callable[[Sequence[float]], float] = fmean, seed: int = 0
) -> tuple[float, float]:
    """A 95 % percentile interval of a statistic (Efron 1979), the same for the same values."""
    rng, count = Random(seed), len(values)
    found = sorted(statistic([values[rng.randrange(count)] for _ in range(count)]) for _ in range(RESAMPLES))
    return found[int(0.025 * RESAMPLES)], found[int(0.975 * RESAMPLES) - 1]


def ratio_interval(ratios: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """The geometric mean of paired ratios and its 95 % interval by Student's t on the logarithms.

    Needs two ratios or more; few rounds make it wide, which is the honest answer.
    """
    logs = [math.log(ratio) for ratio in ratios]
    count, mean = len(logs), fmean(logs)
    spread = math.sqrt(sum((value - mean) ** 2 for value in logs) / (count - 1) / count)
    half = _T[min(count - 1, len(_T)) - 1] * spread
    return math.exp(mean), (math.exp(mean - half), math.exp(mean + half))


# Two-sided 95 % points of Student's t for 1, 2, … degrees of freedom; beyond, the last is a little too wide.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145, 2.131)
