"""Embedding inversion: vectors of a store tell which tokens their texts had.

Whoever can have texts of their own embedded learns by ridge regression which direction stands for which token, and
reads the tokens of others' texts off their vectors (after Song and Raghunathan 2020, arXiv 2004.00053, black box).
A secret rotation of all vectors changes nothing, as what is learned is learned of rotated vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headrace.privacy.attacks.recovery import Clock, Recovery, share
from headrace.privacy.statistics import with_ones
from headrace.spec.errors import InvalidRequest

RIDGE = 1e-2
"""Of the mean square of a direction."""


def bags(texts: Sequence[Sequence[int]], vocab: int) -> np.ndarray:
    """How often each token stands in each text: float32 [texts, vocab]."""
    found = np.zeros((len(texts), vocab), np.float32)
    for row, tokens in zip(found, texts, strict=True):
        np.add.at(row, np.asarray(tokens, np.int64), 1)
    return found


def learn(vectors: np.ndarray, held: np.ndarray, ridge: float = RIDGE) -> np.ndarray:
    """The linear map from a vector and a one to which tokens are there: [n, d], [n, vocab] -> [d + 1, vocab]."""
    inputs = with_ones(vectors)
    square = inputs.T @ inputs
    square += ridge * np.trace(square) / len(square) * np.eye(len(square))
    return np.linalg.solve(square, inputs.T @ (held > 0).astype(np.float64))


def named(vectors: np.ndarray, learned: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """The `counts[i]` tokens that are likeliest in text i, or all that were learned: bool [n, tokens learned]."""
    scores = with_ones(vectors) @ learned
    found = np.zeros(scores.shape, bool)
    for row, score, count in zip(found, scores, counts, strict=True):
        row[np.argsort(-score, kind="stable")[:count]] = True
    return found


def invert(
    observed: np.ndarray,
    known: np.ndarray,
    texts: Sequence[Sequence[int]],
    own_texts: Sequence[Sequence[int]],
    vocab: int,
) -> Recovery:
    """Vectors of others' texts, float [n, d], read by one who has vectors of texts of their own, [m, d].

    `texts` are the true tokens, by which the tokens named are scored: as many are named for a text as it has
    distinct ones, of those that the attacker's own texts have. Types are a text's distinct tokens, mass counts
    occurrences. Chance is what the same guesses recover of the next text. Raises InvalidRequest for fewer than two
    texts, or for texts without tokens.
    """
    if len(texts) < 2 or len(own_texts) < 2 or not all(map(len, (*texts, *own_texts))):
        raise InvalidRequest("Inversion needs two texts of either side, none empty; give more lines.", "texts")
    clock, there, own = Clock(), bags(texts, vocab), bags(own_texts, vocab)
    used = np.flatnonzero((own > 0).any(axis=0) | (there > 0).any(axis=0))
    there, own = there[:, used], own[:, used]
    counts = [int(count) for count in (there > 0).sum(axis=1)]
    seen, guess = (own > 0).any(axis=0), np.zeros(there.shape, bool)
    guess[:, seen] = named(observed, learn(known, own[:, seen]), counts)
    cost = clock.cost(observed, known)
    frequent = np.zeros_like(guess)
    for row, count in zip(frequent, counts, strict=True):
        row[np.argsort(-(own > 0).sum(axis=0), kind="stable")[:count]] = True
    present, following = there > 0, np.roll(there, -1, axis=0)
    chance, mass_chance = float(guess[following > 0].mean()), float((guess * following).sum() / following.sum())
    types = share(np.ones(int(present.sum())), guess[present], chance)
    mass = share(there[present].astype(np.float64), guess[present], mass_chance)
    details = {"own_texts": len(own_texts), "most_frequent": float(frequent[present].mean())}
    return Recovery("inversion", types, mass, int(present.sum()), cost, details)
