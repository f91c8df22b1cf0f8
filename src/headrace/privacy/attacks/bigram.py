"""Bigram: ids on the wire and nothing else. A fixed permutation of ids is a substitution cipher.

Which id follows which is a graph. That of the victim's most frequent ids is matched to that of public text by
quadratic assignment (FAQ: Vogelstein et al. 2015); propagation does the others.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import quadratic_assignment

from headrace.privacy.attacks.propagate import propagate
from headrace.privacy.attacks.recovery import UNKNOWN
from headrace.privacy.attacks.traffic import Traffic

TOP = 1000
SINKHORN_ROUNDS = 1000


def bigram(wire: Traffic, known: Traffic, top: int = TOP) -> np.ndarray:
    """The token map of the ids on the wire, int [vocab], from the attacker's own text of the same vocabulary."""
    return propagate(wire, known, by_assignment(wire, known, top))


def by_rank(wire: Traffic, known: Traffic) -> np.ndarray:
    """The map that pairs ids of equal rank of frequency, int [vocab]: the baseline."""
    token_map = np.full(len(wire.counts), UNKNOWN)
    count = min(len(wire.ranked), len(known.ranked))
    token_map[wire.ranked[:count]] = known.ranked[:count]
    return token_map


def by_assignment(wire: Traffic, known: Traffic, top: int = TOP) -> np.ndarray:
    """The map of the `top` most frequent ids under which the two graphs agree best, int [vocab]."""
    size = min(top, len(wire.ranked), len(known.ranked))
    ours, theirs = wire.ranked[:size], known.ranked[:size]
    graphs = [_graph(wire, ours), _graph(known, theirs)]
    start = _even_in_frequency(wire.log_shares(ours), known.log_shares(theirs))
    options = {"maximize": True, "P0": "barycenter" if start is None else start}
    found = quadratic_assignment(*graphs, method="faq", options=options)
    token_map = np.full(len(wire.counts), UNKNOWN)
    token_map[ours] = theirs[found.col_ind]
    return token_map


def _graph(side: Traffic, ids: np.ndarray) -> np.ndarray:
    """Roots of the bigram counts among the ids, scaled to length one: the few large ones would drown the others."""
    roots = np.sqrt(side.follows[ids][:, ids].toarray().astype(np.float64))
    return roots / max(float(np.linalg.norm(roots)), 1e-30)


def _even_in_frequency(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray | None:
    """A doubly stochastic start that favours pairs of like frequency; None where balancing does not settle."""
    table = np.exp(-((ours[:, None] - theirs) ** 2) / 2) + 1e-6
    for _ in range(SINKHORN_ROUNDS):
        table /= table.sum(axis=1, keepdims=True)
        table /= table.sum(axis=0)
        if np.allclose(table.sum(axis=1), 1, rtol=1e-6):
            return table
    return None
