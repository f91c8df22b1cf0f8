"""Known pairs: some ids on the wire whose tokens the attacker knows, from a template, a greeting or a leaked page."""

from __future__ import annotations

import numpy as np

from headrace.privacy.attacks.align import Alignment, refine
from headrace.privacy.attacks.nearest import Nearest
from headrace.privacy.attacks.propagate import Told, propagate
from headrace.privacy.attacks.recovery import UNKNOWN
from headrace.privacy.attacks.traffic import Traffic
from headrace.spec.errors import InvalidRequest


def pairs_of(wire: np.ndarray, tokens: np.ndarray) -> Told:
    """The pairs that a piece of traffic with its text tells: int [n] each, one of every distinct id.

    Raises InvalidRequest for pieces of different length.
    """
    if len(wire) != len(tokens):
        raise InvalidRequest(f"{len(wire)} ids and {len(tokens)} tokens are no pairs; give as many of each.", "tokens")
    distinct, first = np.unique(wire, return_index=True)
    return Told(distinct.astype(np.int64), tokens[first].astype(np.int64))


def with_traffic(wire: Traffic, known: Traffic, told: Told) -> np.ndarray:
    """The token map of the ids on the wire, int [vocab], from pairs and the attacker's own text; no weights."""
    return propagate(wire, known, np.full(len(wire.counts), UNKNOWN), told)


def with_weights(public: np.ndarray, deployed: np.ndarray, told: Told, rounds: int = 3) -> Alignment:
    """The token map and rotation between two embeddings, float [vocab, d], from pairs: Procrustes, then matching.

    It needs neither moments nor invariants, so it also meets tables whose noise has hidden them.
    """
    of_rows, known = np.full(len(deployed), UNKNOWN), np.zeros(len(deployed), bool)
    of_rows[told.wire], known[told.wire] = told.tokens, True
    found = refine(public, deployed, Nearest(of_rows, known), rounds)
    found.token_map[told.wire] = told.tokens
    return found
