"""Propagation: ids matched already tell which others keep the same company (after Narayanan and Shmatikov 2009).

Each round takes the most trusted matches as anchors, describes every frequent id of either side by how often each
anchor stands before and after it, and matches all anew; so an early mistake is mended where its company disagrees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array, diags_array, hstack

from headrace.privacy.attacks.recovery import UNKNOWN
from headrace.privacy.attacks.traffic import Traffic

ROUNDS = (1000, 1000, 1000, 1000, 2000, 2000, 2000, 4000, 4000)
"""How many of the victim's most frequent ids each round matches."""
REACH = 1.5
"""The attacker's candidates for n ids are its own n x REACH most frequent."""
ANCHORS = 400
MARGIN = 0.03
"""An anchor is nearer to its match than to any other by this much cosine."""
FREQUENCY = 0.02
"""What a difference of one in log frequency, squared, costs in cosine."""
FLATTENING = 0.25
"""The power of an anchor's frequency that its column is divided by."""
RARE = 3
"""Fewer occurrences say nothing of an id's company."""
BLOCK = 512


@dataclass(frozen=True, slots=True)
class Told:
    """Pairs the attacker knows: int [n] each, ids on the wire and their tokens."""

    wire: np.ndarray
    tokens: np.ndarray


NOTHING = Told(np.empty(0, np.int64), np.empty(0, np.int64))


def propagate(wire: Traffic, known: Traffic, token_map: np.ndarray, told: Told = NOTHING) -> np.ndarray:
    """The map of all ids that occur at least RARE times, int [vocab], from that of a few; UNKNOWN for the others."""
    token_map = token_map.copy()
    token_map[told.wire] = told.tokens
    anchors = wire.ranked[token_map[wire.ranked] != UNKNOWN][: max(ROUNDS)]
    for size in ROUNDS:
        if not len(anchors):
            break
        token_map, anchors = _round(wire, known, token_map, anchors, size, told)
    if len(anchors):
        _tail(wire, known, token_map, anchors)
    token_map[told.wire] = told.tokens
    return token_map


def _round(
    wire: Traffic, known: Traffic, token_map: np.ndarray, anchors: np.ndarray, size: int, told: Told
) -> tuple[np.ndarray, np.ndarray]:
    """The map of the `size` most frequent ids, and the anchors it trusts."""
    ours, theirs = wire.ranked[:size], known.ranked[: int(size * REACH)]
    closeness = _closeness(wire, known, token_map, anchors, ours, theirs)
    for row, column in _places(told, ours, theirs):
        closeness[row], closeness[:, column] = -1.0, -1.0
        closeness[row, column] = 1.0
    rows, columns = linear_sum_assignment(closeness, maximize=True)
    fresh = np.full(len(token_map), UNKNOWN)
    fresh[ours[rows]] = theirs[columns]
    fresh[told.wire] = told.tokens
    trusted = rows[_trusted(closeness, rows, columns)]
    return fresh, ours[trusted][:ANCHORS]


def _places(told: Told, ours: np.ndarray, theirs: np.ndarray) -> list[tuple[int, int]]:
    row, column = ({int(id_): at for at, id_ in enumerate(ids)} for ids in (ours, theirs))
    pairs = zip(told.wire.tolist(), told.tokens.tolist(), strict=True)
    return [(row[one], column[other]) for one, other in pairs if one in row and other in column]


def _trusted(closeness: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Which assigned pairs are each other's best, by a margin."""
    chosen = closeness[rows, columns]
    best = chosen >= np.maximum(closeness.max(axis=1)[rows], closeness.max(axis=0)[columns])
    if closeness.shape[1] < 2:
        return best
    second = np.partition(closeness, -2, axis=1)[rows, -2]
    return best & (chosen - second > MARGIN)


def _closeness(
    wire: Traffic, known: Traffic, token_map: np.ndarray, anchors: np.ndarray, ours: np.ndarray, theirs: np.ndarray
) -> np.ndarray:
    """Cosine of the companies less the frequencies' disagreement: float [ours, theirs]."""
    partners = token_map[anchors]
    flat = np.maximum(known.counts[partners], 1).astype(np.float32) ** -FLATTENING
    one, other = _company(wire, ours, anchors, flat), _company(known, theirs, partners, flat)
    apart = wire.log_shares(ours)[:, None] - known.log_shares(theirs)
    return one @ other.toarray().T - FREQUENCY * apart**2


def _company(side: Traffic, ids: np.ndarray, anchors: np.ndarray, flat: np.ndarray) -> csr_array:
    """Roots of the counts with each anchor after and before, in rows of length one: sparse [ids, 2 anchors]."""
    table = hstack([side.follows[ids][:, anchors], side.precedes[ids][:, anchors]], format="csr").sqrt()
    table = table @ diags_array(np.concatenate([flat, flat]))
    lengths = np.sqrt(table.multiply(table).sum(axis=1))
    return csr_array(diags_array((1 / np.maximum(lengths, 1e-9)).astype(np.float32)) @ table)


def _tail(wire: Traffic, known: Traffic, token_map: np.ndarray, anchors: np.ndarray) -> None:
    """Gives each id that the rounds did not reach its nearest among the tokens that are still free."""
    rest = wire.ranked[token_map[wire.ranked] == UNKNOWN]
    rest = rest[wire.counts[rest] >= RARE]
    free = known.ranked[~np.isin(known.ranked, token_map[token_map != UNKNOWN])]
    for start in range(0, len(rest) if len(free) else 0, BLOCK):
        ids = rest[start : start + BLOCK]
        token_map[ids] = free[_closeness(wire, known, token_map, anchors, ids, free).argmax(axis=1)]
