"""Intervals and tests for rates, effects and differences. The unit is the question; its samples stay together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist, fmean
from typing import TypeAlias

import numpy as np

from headrace.spec.errors import InvalidRequest

RESAMPLES = 2000
Interval: TypeAlias = tuple[float, float]


def wilson(successes: float, trials: float, confidence: float = 0.95) -> Interval:
    """For one rate of independent trials (Wilson 1927); of unequal weight, their effective number.

    Raises InvalidRequest without trials.
    """
    if not trials > 0 or not 0 <= successes <= trials:
        raise InvalidRequest(f"{successes} successes of {trials} trials give no rate; count again.", "trials")
    z, rate = NormalDist().inv_cdf((1 + confidence) / 2), successes / trials
    centre = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def percentiles(values: np.ndarray, confidence: float = 0.95) -> Interval:
    """The middle part of a statistic's bootstrap values along their first axis; what is nan is left out."""
    low, high = np.nanquantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def bootstrap_weights(questions: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each question is drawn in each resample: float [resamples, questions], rows sum to `questions`."""
    if questions < 1:
        raise InvalidRequest("There are no questions to resample; give at least one.", "questions")
    even = np.full(questions, 1 / questions)
    return np.random.default_rng(seed).multinomial(questions, even, size=resamples).astype(np.float64)


def bootstrap(
    values: Sequence[float] | np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """A 95 % percentile interval (Efron 1979) of the mean, or of a statistic over the last axis."""
    data = np.asarray(values, dtype=np.float64)
    if statistic is None:
        return percentiles(bootstrap_weights(len(data), resamples, seed) @ data / len(data))
    picks = np.random.default_rng(seed).integers(len(data), size=(resamples, len(data)))
    return percentiles(statistic(data[picks]))


def cluster_bootstrap(groups: Sequence[Sequence[float]], seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """A 95 % interval of the mean over all samples when whole questions are drawn; groups may differ in size."""
    sums, counts = np.array([sum(group) for group in groups]), np.array([len(group) for group in groups])
    weights = bootstrap_weights(len(groups), resamples, seed)
    return percentiles((weights @ sums) / np.maximum(weights @ counts, 1))


def paired_bootstrap(
    one: Sequence[float], other: Sequence[float], seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, Interval]:
    """The mean difference one - other over the same questions, each a value a question, and its 95 % interval.

    Raises InvalidRequest when the two are not over the same questions.
    """
    if len(one) != len(other):
        raise InvalidRequest(f"{len(one)} and {len(other)} questions are no pairs; give the same questions.", "other")
    differences = np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    return float(differences.mean()), bootstrap(differences, seed=seed, resamples=resamples)


def mcnemar(only_one: int, only_other: int) -> float:
    """The exact two-sided p-value that A and B are equally good, from the questions that only one of them solved."""
    discordant = only_one + only_other
    tail = sum(math.comb(discordant, count) for count in range(min(only_one, only_other) + 1))
    return min(2 * tail / 2**discordant, 1.0)


def detectable_difference(
    differences: Sequence[float], questions: int | None = None, power: float = 0.8, confidence: float = 0.95
) -> float:
    """The smallest true mean difference that as many paired questions find with this power (normal theory).

    The spread is that of `differences`, one a question; `questions` asks about another number of them.
    Raises InvalidRequest for fewer than two.
    """
    if len(differences) < 2:
        raise InvalidRequest("A spread needs two paired questions; give more.", "differences")
    normal = NormalDist()
    reach = normal.inv_cdf((1 + confidence) / 2) + normal.inv_cdf(power)
    return reach * float(np.std(differences, ddof=1)) / math.sqrt(questions or len(differences))


def ratio_interval(ratios: Sequence[float]) -> tuple[float, Interval]:
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
