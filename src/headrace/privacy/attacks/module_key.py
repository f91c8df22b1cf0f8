"""The key of a veiled plain module from its public weights: rows that no key disguises, then linear solves.

What is only permuted beside the residual stream's rotation (hidden units, patches, classes) keeps the lengths of its
rows, which tell the order; what has an order and positive factors (channels behind relu) keeps their directions.
"""

from __future__ import annotations

import numpy as np

from headrace.privacy.attacks.align import procrustes
from headrace.privacy.attacks.nearest import nearest


def rotated_rows(public: np.ndarray, deployed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(order int [n], rotation float64 [d, d]) with deployed ~ public[order] @ rotation, for float [n, d] each.

    Rows are ranked by length, turned by Procrustes (Schönemann 1966) and matched anew; n has to reach d.
    """
    ranked = np.argsort(np.linalg.norm(public, axis=1))
    rank = np.argsort(np.argsort(np.linalg.norm(deployed, axis=1)))
    order = nearest(deployed @ procrustes(public[ranked[rank]], deployed).T, public).of_rows
    return order, procrustes(public[order], deployed)


def scaled_rows(public: np.ndarray, deployed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(order int [n], factors float [n]) with deployed ~ factors[:, None] * public[order], for float [n, d] each."""
    known, seen = (np.linalg.norm(rows, axis=1, keepdims=True) for rows in (public, deployed))
    order = nearest(deployed / seen, public / known).of_rows
    return order, seen[:, 0] / known[order, 0]


def mixed_columns(public: np.ndarray, deployed: np.ndarray) -> np.ndarray:
    """float [d, d]: the matrix with deployed ~ public @ matrix, for float [n, d] each; n has to reach d."""
    return np.linalg.pinv(public) @ deployed
