"""How sure an attack is of itself, where no key tells whether it is right."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.privacy.attacks.align import Alignment, procrustes
from headrace.privacy.attacks.recovery import UNKNOWN, Share, share
from headrace.privacy.attacks.traffic import Traffic

RATIO = 0.8
"""A match is decisive where it is nearer than this share of the next best one's distance (Lowe 2004)."""
SAMPLE = 2048
BLOCK = 256


def chance_of(dimensions: int) -> float:
    """How often a table of something else passes by chance: its nearest rows lie apart as they come."""
    return RATIO**dimensions


def is_decisive(apart: np.ndarray) -> bool:
    """Whether the least of some distances, float [n], is that of a decisive match."""
    best, second = np.partition(apart, 1)[:2]
    return bool(best < RATIO * second)


def decisive(public: np.ndarray, deployed: np.ndarray, found: Alignment, sample: int = SAMPLE) -> np.ndarray:
    """For a sample of deployed rows, whether each is decisively nearest to the public row it is mapped to: bool [n].

    The rotation is fitted anew, to the matches of the rows outside of the sample's half: with few rows a rotation
    can be found that suits any matches.
    """
    rows = np.random.default_rng(0).permutation(len(deployed))
    halves = rows[::2], rows[1::2]
    sure = []
    for fitted, others in (halves, halves[::-1]):
        tested = others[: sample // 2]
        moved = deployed[tested] @ _turn(public, deployed, found, fitted).T
        sure.append(_nearest_by_far(public, moved, found.token_map[tested]))
    return np.concatenate(sure)


def _turn(public: np.ndarray, deployed: np.ndarray, found: Alignment, rows: np.ndarray) -> np.ndarray:
    return procrustes(public[found.token_map[rows]], deployed[rows])


def _nearest_by_far(public: np.ndarray, moved: np.ndarray, matches: np.ndarray) -> np.ndarray:
    """For each row of `moved` [n, d]: its nearest public row is its match, and the next best is well away."""
    moved, lengths = moved.astype(np.float32), np.einsum("nd,nd->n", public, public)
    sure = np.empty(len(moved), bool)
    for start in range(0, len(moved), BLOCK):
        part = moved[start : start + BLOCK]
        apart = lengths - 2 * (part @ public.T) + np.einsum("nd,nd->n", part, part)[:, None]
        nearest, second = np.maximum(np.partition(apart, 1, axis=1)[:, :2], 0).T
        is_match = apart.argmin(axis=1) == matches[start : start + BLOCK]
        sure[start : start + BLOCK] = is_match & (nearest < RATIO**2 * second)
    return sure


class Agreement(NamedTuple):
    """`types`: of the distinct pairs of neighbours on the wire; `mass`: of all pairs."""

    types: Share
    mass: Share
    pairs: int


def agreement(wire: Traffic, known: Traffic, token_map: np.ndarray) -> Agreement:
    """How many neighbours on the wire are, under the map, neighbours in the attacker's text as well.

    Chance is what the same map gives with its tokens exchanged at random.
    """
    pairs = wire.follows.tocoo()
    places = np.flatnonzero(token_map != UNKNOWN)
    shuffled = np.full(len(token_map), UNKNOWN)
    shuffled[places] = np.random.default_rng(0).permutation(token_map[places])
    known_pairs = known.follows.tocoo()
    codes = known_pairs.row.astype(np.int64) * len(token_map) + known_pairs.col
    met, by_chance = (_met(pairs.row, pairs.col, each, codes) for each in (token_map, shuffled))
    even, often = np.ones(len(met)), pairs.data.astype(np.float64)
    types = share(even, met, float(by_chance.mean()))
    return Agreement(types, share(often, met, float(often @ by_chance / often.sum())), len(met))


def _met(first: np.ndarray, second: np.ndarray, token_map: np.ndarray, codes: np.ndarray) -> np.ndarray:
    one, other = token_map[first], token_map[second]
    return (one != UNKNOWN) & (other != UNKNOWN) & np.isin(one.astype(np.int64) * len(token_map) + other, codes)
