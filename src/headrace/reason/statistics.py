"""What stored samples say: any k recomputed from n samples a question, and how good a scorer is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from headrace.reason.intervals import RESAMPLES, Interval, bootstrap_weights, percentiles
from headrace.spec.errors import InvalidRequest


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The unbiased estimate that one of k samples is correct, from `correct` of n: 1 - C(n-c, k) / C(n, k).

    Chen et al. 2021. Raises InvalidRequest unless 1 <= k <= n and 0 <= correct <= n.
    """
    _check_k(n, k)
    if not 0 <= correct <= n:
        raise InvalidRequest(f"{correct} correct of {n} samples cannot be; count again.", "correct")
    if n - correct < k:
        return 1.0
    return 1.0 - math.prod(1 - k / i for i in range(n - correct + 1, n + 1))


def _check_k(n: int, k: int) -> None:
    if not 1 <= k <= n:
        raise InvalidRequest(f"k={k} cannot be estimated from {n} samples; take more samples or a smaller k.", "k")


def maj_at_k(answers: Sequence[Hashable | None], right: Hashable, k: int) -> float:
    """The exact probability that a vote among k of the samples, drawn and ordered at random, gives `right`.

    `answers` are keys of an answer space; None stands for an unparsed sample, which casts no vote. Ties go to
    the answer seen first, which is each of the tied ones with equal probability. Raises InvalidRequest for k > n.
    """
    _check_k(len(answers), k)
    counts = Counter(answer for answer in answers if answer is not None)
    silent, ours = sum(answer is None for answer in answers), counts.pop(right, 0)
    won = 0.0
    for votes in range(1, min(ours, k) + 1):
        ways = _rivals(list(counts.values()), silent, votes, k - votes)
        won += math.comb(ours, votes) * sum(count / (tied + 1) for tied, count in enumerate(ways))
    return won / math.comb(len(answers), k)


def _rivals(sizes: Sequence[int], silent: int, votes: int, seats: int) -> list[int]:
    """In how many ways the others fill the seats with none above `votes`, by how many of them reach it.

    The coefficients of a product with one polynomial a rival, in x (seats) and y (ties).
    """
    most = min(len(sizes), seats // votes)
    table = [[math.comb(silent, filled), *[0] * most] for filled in range(seats + 1)]
    for size in sizes:
        fresh = [[0] * (most + 1) for _ in range(seats + 1)]
        for taken in range(min(size, votes, seats) + 1):
            ways, tie = math.comb(size, taken), int(taken == votes)
            for filled in range(seats - taken + 1):
                for tied in range(most + 1 - tie):
                    fresh[filled + taken][tied + tie] += ways * table[filled][tied]
        table = fresh
    return table[seats]


def best_at_k(scores: Sequence[float], correct: Sequence[bool], k: int) -> float:
    """The exact probability that the best-scored of k samples, drawn at random, is correct; ties to the first seen.

    Raises InvalidRequest for k > n.
    """
    n = len(scores)
    _check_k(n, k)
    value, below = 0.0, n
    for score in sorted(set(scores), reverse=True):
        tied = [bool(good) for one, good in zip(scores, correct, strict=True) if one == score]
        best = math.comb(below, k) - math.comb(below - len(tied), k)
        value += best * sum(tied) / len(tied)
        below -= len(tied)
    return value / math.comb(n, k)


def auc(
    scores: Sequence[float],
    correct: Sequence[bool],
    questions: Sequence[Hashable] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[float, Interval]:
    """The probability that a correct candidate outscores a wrong one, ties half, and a 95 % bootstrap interval.

    Whole questions are resampled; without `questions` each candidate is one. Raises InvalidRequest when all
    candidates are correct or all are wrong.
    """
    good = np.asarray(correct, dtype=bool)
    if good.all() or not good.any():
        raise InvalidRequest("An AUC needs correct and wrong candidates; give some of both.", "correct")
    order = np.argsort(np.asarray(scores, dtype=np.float64), kind="stable")
    ranked, good = np.asarray(scores, dtype=np.float64)[order], good[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    places: dict[Hashable, int] = {}
    owners = range(len(good)) if questions is None else questions
    named = np.array([places.setdefault(owner, len(places)) for owner in owners])
    drawn = bootstrap_weights(len(places), resamples, seed)
    found = [_weighted_auc(row[named[order]], good, starts) for row in (np.ones(drawn.shape[1]), *drawn)]
    return found[0], percentiles(np.array(found[1:]))


def _weighted_auc(weights: np.ndarray, good: np.ndarray, starts: np.ndarray) -> float:
    """AUC of weighted candidates in ascending order of score; `starts` begin the groups of equal score."""
    right, wrong = np.add.reduceat(weights * good, starts), np.add.reduceat(weights * ~good, starts)
    pairs = right.sum() * wrong.sum()
    return float(right @ (np.cumsum(wrong) - wrong / 2) / pairs) if pairs else math.nan


def brier(probabilities: Sequence[float], outcomes: Sequence[bool]) -> float:
    """The mean squared distance between probability and outcome (Brier 1950); 0 is best, 0.25 says nothing."""
    return float(np.mean((np.asarray(probabilities) - np.asarray(outcomes, dtype=np.float64)) ** 2))


def expected_calibration_error(probabilities: Sequence[float], outcomes: Sequence[bool], bins: int = 10) -> float:
    """The mean distance between stated probability and observed share, over `bins` equal parts of [0, 1]."""
    stated, happened = np.asarray(probabilities, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    place = np.minimum((stated * bins).astype(int), bins - 1)
    return float(np.abs(np.bincount(place, stated - happened, minlength=bins)).sum() / len(stated))
