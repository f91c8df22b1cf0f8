"""Attacks on ids on the wire by someone who has text of their own in the same vocabulary, and no weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from headrace.privacy.attacks.bigram import TOP, bigram
from headrace.privacy.attacks.confidence import agreement
from headrace.privacy.attacks.known_pairs import with_traffic
from headrace.privacy.attacks.propagate import Told
from headrace.privacy.attacks.recovery import Clock, Recovery, score_map
from headrace.privacy.attacks.traffic import traffic


def bigram_traffic(
    wire: np.ndarray, known: np.ndarray, vocab: int, truth: np.ndarray | None = None, top: int = TOP
) -> Recovery:
    """The token map from which id follows which: ids on the wire and the attacker's own, int [tokens] each.

    `truth` int [vocab]: the token of each id on the wire; without it what counts is how far the two agree.
    """
    return map_traffic("bigram", wire, known, vocab, truth, top=top)


def told_traffic(
    wire: np.ndarray, known: np.ndarray, told: Told, vocab: int, truth: np.ndarray | None = None
) -> Recovery:
    """The same from pairs of ids and tokens; scored on the other ids."""
    return map_traffic("known-pairs", wire, known, vocab, truth, told)


def map_traffic(
    attack: str,
    wire: np.ndarray,
    known: np.ndarray,
    vocab: int,
    truth: np.ndarray | None,
    told: Told | None = None,
    top: int = TOP,
    needed: int | None = None,
    more: Mapping[str, Any] | None = None,
) -> Recovery:
    """`needed`: tokens of the victim's traffic that it took, where those on the wire are not the victim's own."""
    clock = Clock()
    ours, theirs = traffic(wire, vocab), traffic(known, vocab)
    found = bigram(ours, theirs, top) if told is None else with_traffic(ours, theirs, told)
    cost = clock.cost(wire, known, tokens=len(wire) if needed is None else needed)
    fits = agreement(ours, theirs, found)
    details = {"attacker_tokens": len(known), "agreement": fits.mass.value, **(more or {})}
    held_out = None if told is None else ~np.isin(np.arange(vocab), told.wire)
    if told is not None:
        details["told"] = len(told.wire)
    if truth is None:
        return Recovery(attack, fits.types, fits.mass, fits.pairs, cost, details, "confidence")
    return score_map(attack, found, truth, cost, ours.counts, held_out, details)
