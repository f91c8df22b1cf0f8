"""Statistical depth of texts in an embedding, and a test whether two sets of texts differ.

Seegmiller and Preum 2023 (arXiv 2310.15010): a text's depth in a set is two less its mean cosine distance to the set.
Two sets are compared by the ranks of their depths in one reference (Liu and Singh 1993): the less deep is the one that
lies further out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


@dataclass(frozen=True, slots=True)
class Shift:
    """`q`: the chance that one of the first is less deep than one of the second, ties half; 0.5 where they are alike.

    `p`: two-sided, of the rank-sum test (Wilcoxon 1945) in its normal approximation with ties.
    """

    q: float
    p: float


def depths(vectors: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Of unit vectors, float [n, width], in a reference float [m, width]: float [n], from 0 to 2.

    The mean cosine distance to a set is one less the product with the set's mean, so no pair is looked at.
    """
    return 1 + vectors.astype(np.float64) @ reference.mean(axis=0, dtype=np.float64)


def shift(one: np.ndarray, other: np.ndarray) -> Shift:
    """Of two lists of depths in the same reference, float [n] and [m], neither of them empty."""
    both = np.concatenate([one, other])
    _, place, counts = np.unique(both, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    n, m, whole = len(one), len(other), len(both)
    # How many pairs have the first deeper; the rest, and half of the ties, have it less deep.
    deeper = float(ranks[:n].sum()) - n * (n + 1) / 2
    ties = float((counts.astype(np.float64) ** 3 - counts).sum()) / max(whole * (whole - 1), 1)
    spread = math.sqrt(n * m / 12 * (whole + 1 - ties))
    z = (deeper - n * m / 2) / spread if spread else 0.0
    return Shift(1 - deeper / (n * m), 2 * (1 - NormalDist().cdf(abs(z))))


def rejected(vectors: np.ndarray, splits: int, seed: int = 0, level: float = 0.05) -> int:
    """How many random splits of one set, float [n, width], the test takes for two sets.

    Half of the set is the reference, the quarters are compared: what is rejected is the test's error of the first kind.
    """
    rng, half, quarter = np.random.default_rng(seed), len(vectors) // 2, len(vectors) // 4
    count = 0
    for _ in range(splits):
        order = rng.permutation(len(vectors))
        found = depths(vectors[order[half:]], vectors[order[:half]])
        count += shift(found[:quarter], found[quarter:]).p < level
    return count
