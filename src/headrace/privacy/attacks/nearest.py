"""Nearest rows of one table in another, a block at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BLOCK = 512


@dataclass(frozen=True, slots=True)
class Nearest:
    """`of_rows` int [n]: the target nearest to each row. `mutual` bool [n]: the row is the nearest of that target."""

    of_rows: np.ndarray
    mutual: np.ndarray


def nearest(rows: np.ndarray, targets: np.ndarray) -> Nearest:
    """Euclidean; float [n, d] and [m, d], compared in float32. Of the n x m distances 512 rows exist at once."""
    rows, targets = rows.astype(np.float32, copy=False), targets.astype(np.float32, copy=False)
    row_half, target_half = (np.einsum("nd,nd->n", table, table) / 2 for table in (rows, targets))
    of_rows, row_best = np.empty(len(rows), np.int64), np.empty(len(rows), np.float32)
    target_best = np.full(len(targets), -np.inf, np.float32)
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        closeness = rows[part] @ targets.T
        closeness -= target_half
        closeness -= row_half[part, None]
        of_rows[part] = closeness.argmax(axis=1)
        row_best[part] = np.take_along_axis(closeness, of_rows[part, None], axis=1)[:, 0]
        np.maximum(target_best, closeness.max(axis=0), out=target_best)
    # The same number from the same product: equality is exact.
    return Nearest(of_rows, target_best[of_rows] == row_best)
