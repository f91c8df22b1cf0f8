"""What scores of many attempts a question are worth: the best of all, of those of the better half, of a few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np

from headrace.evidence.self_evaluation import Looked
from headrace.evidence.self_teaching import Attempt
from headrace.reason.intervals import Interval
from headrace.reason.scorers.probe import Probe
from headrace.reason.statistics import auc

PLACES = ("half", "end")


@dataclass(frozen=True, slots=True)
class Pool:
    """Attempts, [questions, samples]: right or not, tokens in all and up to the half, and scores by name and place."""

    right: np.ndarray
    tokens: np.ndarray
    halves: np.ndarray
    scores: dict[tuple[str, str], np.ndarray]

    @classmethod
    def plain(cls, found: Sequence[Looked], probe: Probe, samples: int) -> Pool:
        """Attempts of the model itself, with what its verdict, the probe and their log-probability say."""
        said = probe.head(np.stack([one.states for one in found]))
        scores = {("probe", place): said[:, column].reshape(-1, samples) for column, place in enumerate(PLACES)}
        return cls._of(found, scores, ("verdict", "logprob"), samples)

    @classmethod
    def taught(cls, found: Sequence[Attempt], name: str, samples: int) -> Pool:
        """Attempts drawn with an adapter, with its own verdict under that name and their log-probability."""
        pool = cls._of(found, {}, ("verdict", "logprob"), samples)
        renamed = {(name if one == "verdict" else one, place): held for (one, place), held in pool.scores.items()}
        return cls(pool.right, pool.tokens, pool.halves, renamed)

    @classmethod
    def _of(
        cls,
        found: Sequence[Looked] | Sequence[Attempt],
        scores: dict[tuple[str, str], np.ndarray],
        named: tuple[str, ...],
        samples: int,
    ) -> Pool:
        right = np.array([one.right for one in found]).reshape(-1, samples)
        tokens = np.array([one.tokens for one in found]).reshape(-1, samples, 2)
        for name, place in product(named, PLACES):
            values = [getattr(getattr(one, name), place) for one in found]
            scores[name, place] = np.array(values).reshape(-1, samples)
        return cls(right, tokens[..., 1], tokens[..., 0], scores)

    @property
    def names(self) -> list[str]:
        return sorted({name for name, _ in self.scores})

    def auc(self, name: str, place: str) -> tuple[float, Interval]:
        questions = np.repeat(np.arange(len(self.right)), self.right.shape[1]).tolist()
        return auc(self.scores[name, place].ravel().tolist(), self.right.ravel().tolist(), questions, resamples=500)

    def best(self, name: str) -> np.ndarray:
        """float [questions]: whether the attempt with the best score at its end is right."""
        return best(self.scores[name, "end"], self.right)


def best(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """float [questions]: whether the best-scored attempt is right."""
    return right[np.arange(len(right)), scores.argmax(1)].astype(np.float64)


class Patience(NamedTuple):
    """Samples are drawn until one has a score of `good` or more: `most` at most."""

    good: float
    most: int


def adaptive(scores: np.ndarray, right: np.ndarray, patience: Patience) -> tuple[np.ndarray, np.ndarray]:
    """Samples one after another for as long as `patience` says, then the best: share right and samples, [questions].

    Means over all orders that are rotations of the one of drawing.
    """
    count = scores.shape[1]
    correct, taken = np.zeros(len(scores)), np.zeros(len(scores))
    for shift in range(count):
        order = np.roll(np.arange(count), shift)[: patience.most]
        now, good = scores[:, order], right[:, order]
        stop = now >= patience.good
        used = np.where(stop.any(1), stop.argmax(1) + 1, now.shape[1])
        shown = np.where(np.arange(now.shape[1]) < used[:, None], now, -np.inf)
        correct += good[np.arange(len(now)), shown.argmax(1)]
        taken += used
    return correct / count, taken / count


def patiences(scores: np.ndarray) -> list[Patience]:
    """Those that are tried."""
    goods = np.quantile(scores, np.linspace(0, 1, 101))
    return [Patience(float(good), most) for good, most in product(goods, range(1, scores.shape[1] + 1))]


def enough(scores: np.ndarray, right: np.ndarray, aim: float) -> Patience:
    """What is right most often with `aim` samples or fewer on average."""
    found = patiences(scores)
    outcomes = [tuple(part.mean() for part in adaptive(scores, right, one)) for one in found]
    fitting = [(correct, patience) for (correct, taken), patience in zip(outcomes, found, strict=True) if taken <= aim]
    return max(fitting)[1]
