"""The blind baseline: what the texts alone tell of membership, without any model (Das, Zhang, Tramèr 2024)."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from headrace.privacy.attacks.recovery import Share
from headrace.privacy.audit.logistic import cross_fitted
from headrace.privacy.audit.rates import Scores, auc

BUCKETS = 128
FOLDS = 5
RIDGE = 100.0
LIMIT = 0.55
"""From this AUC on the two sets differ of themselves, and no attack on them shows that anything was memorised."""


def blind(members: Sequence[str], held_out: Sequence[str], seed: int = 0) -> Share:
    """AUC of a classifier on words, word pairs and length, which was trained on other documents of both sets."""
    features = np.array([_features(text) for text in (*members, *held_out)])
    labels = np.repeat([1.0, 0.0], [len(members), len(held_out)])
    scores = cross_fitted(features, labels, seed, RIDGE, FOLDS)
    return auc(Scores(scores[: len(members)], scores[len(members) :]), seed)


def _features(text: str) -> np.ndarray:
    """Counts of words and pairs by bucket, and the logarithm of the length: float [buckets + 1]."""
    found, words = np.zeros(BUCKETS + 1), text.split()
    for piece in (*words, *map(" ".join, pairwise(words))):
        found[zlib.crc32(piece.encode()) % BUCKETS] += 1
    found[-1] = math.log(len(text) + 1)
    return found
