"""Logistic regression with a ridge, and scores by models that have not seen what they score."""

from __future__ import annotations

import numpy as np

STEPS = 25


def fit(x: np.ndarray, y: np.ndarray, ridge: float = 1.0) -> np.ndarray:
    """Weights [features + 1] of float [n, features] for labels [n] of 0 and 1; the last is the intercept.

    Newton's steps on the likelihood less ridge / 2 times the squared weights, the intercept's left out.
    """
    full = np.hstack([x, np.ones((len(x), 1))])
    penalty = np.append(np.full(x.shape[1], ridge), 1e-6)
    weights = np.zeros(full.shape[1])
    for _ in range(STEPS):
        chance = 0.5 * (1 + np.tanh(0.5 * full @ weights))
        slope = full.T @ (y - chance) - penalty * weights
        curve = (full * (chance * (1 - chance))[:, None]).T @ full + np.diag(penalty)
        step = np.linalg.solve(curve, slope)
        weights += step / max(1.0, float(np.abs(step).max()))
    return weights


def cross_fitted(x: np.ndarray, y: np.ndarray, seed: int, ridge: float = 1.0, folds: int = 2) -> np.ndarray:
    """Log-odds [n], each by a model of the other folds; every fold has its share of both labels."""
    fold, rng = np.zeros(len(y), int), np.random.default_rng(seed)
    for label in (0, 1):
        rows = rng.permutation(np.flatnonzero(y == label))
        fold[rows] = np.arange(len(rows)) % folds
    scores = np.empty(len(y))
    for number in range(folds):
        mine, others = fold == number, fold != number
        middle, spread = x[others].mean(0), x[others].std(0)
        spread[spread < 1e-9] = np.inf  # a feature that is the same everywhere says nothing
        weights = fit((x[others] - middle) / spread, y[others], ridge)
        scores[mine] = (x[mine] - middle) / spread @ weights[:-1] + weights[-1]
    return scores
