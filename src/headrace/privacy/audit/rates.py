"""How well scores tell members from held-out documents: AUC and TPR at 1 % FPR, each with a bootstrap interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headrace.privacy.attacks.recovery import Share, share
from headrace.privacy.statistics import Estimate, middle
from headrace.spec.errors import InvalidRequest

FPR = 0.01
RESAMPLES = 2000
LEAST_HELD_OUT = 100
"""Fewer held-out documents do not have a hundredth."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Of one attack: a higher one speaks for a member. float [members], float [held-out]."""

    members: np.ndarray
    held_out: np.ndarray


def auc(scores: Scores, seed: int = 0) -> Share:
    """The chance that a member has a higher score than a held-out document, ties counting half."""
    wins = _wins(scores)
    return Share(float(wins.mean()), *middle(_weighed(wins, seed)), 0.5)


def auc_gain(one: Scores, other: Scores, seed: int = 0) -> Estimate:
    """AUC of one attack less that of another on the same documents, which are resampled together."""
    apart = _wins(one) - _wins(other)
    return Estimate(float(apart.mean()), *middle(_weighed(apart, seed)))


def tpr(scores: Scores, seed: int = 0) -> Share:
    """The share of members above the score that at most 1 % of the held-out documents exceed.

    The interval is that of the bootstrap over members and held-out documents (Efron 1979), or Wilson's at this bar
    where that is wider: resampling none, or all, gives no interval. Raises InvalidRequest as `check_counts` does.
    """
    check_counts(len(scores.members), len(scores.held_out))
    above = scores.members > bar(scores.held_out)
    plain = share(np.ones(len(above)), above, FPR)
    low, high = middle(_resampled_tpr(scores, seed))
    return Share(plain.value, min(plain.low, low), max(plain.high, high), FPR)


def check_counts(members: int, held_out: int) -> None:
    """Raises InvalidRequest for no members, and for held-out documents that have no hundredth."""
    if not members:
        raise InvalidRequest("There are no members; give at least one document that was trained on.", "members")
    if held_out < LEAST_HELD_OUT:
        raise InvalidRequest(
            f"{held_out} held-out documents have no hundredth; give at least {LEAST_HELD_OUT}.", "held_out"
        )


def bar(held_out: np.ndarray) -> np.ndarray:
    """The score that at most 1 % of the last axis exceed: float [..., n] -> [...]."""
    count = held_out.shape[-1]
    place = count - 1 - count // 100
    return np.partition(held_out, place, axis=-1)[..., place]


def _wins(scores: Scores) -> np.ndarray:
    """[members, held-out]: 1 where the member is above, 0.5 where the two are equal, else 0."""
    members, held_out = scores.members[:, None], scores.held_out[None, :]
    return (members > held_out) + 0.5 * (members == held_out)


def _weighed(values: np.ndarray, seed: int) -> np.ndarray:
    """Means of [members, held-out] over resamples of both: float [resamples]."""
    rng, (members, held_out) = np.random.default_rng(seed), values.shape
    rows = rng.multinomial(members, np.full(members, 1 / members), size=RESAMPLES) / members
    columns = rng.multinomial(held_out, np.full(held_out, 1 / held_out), size=RESAMPLES) / held_out
    return ((rows @ values) * columns).sum(1)


def _resampled_tpr(scores: Scores, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    held_out = rng.choice(scores.held_out, (RESAMPLES, len(scores.held_out)))
    members = rng.choice(scores.members, (RESAMPLES, len(scores.members)))
    return (members > bar(held_out)[:, None]).mean(1)
