"""Attacks on a veiled folder by someone who has the public weights as well."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.privacy.attacks.align import Alignment, align
from headrace.privacy.attacks.artefact import Opened
from headrace.privacy.attacks.confidence import chance_of, decisive
from headrace.privacy.attacks.known_pairs import with_weights
from headrace.privacy.attacks.propagate import Told
from headrace.privacy.attacks.recovery import Clock, Recovery, score_confidence, score_map
from headrace.privacy.attacks.truth import Truth
from headrace.privacy.attacks.whole_key import LayerKey, layer_key

ENOUGH = 0.5
"""The second start is tried where the first leaves the attack sure of less than this."""


def align_folder(public: Opened, deployed: Opened, truth: Truth | None = None) -> Recovery:
    """The token map and the rotation from the two embeddings, then the first layer's keys.

    Invariants of single tokens are the start, moments where these do not lead on. Without `truth` what counts is
    how many ids the attack is sure of. Raises InvalidRequest for tables of different shape.
    """
    clock, tables = Clock(), (public.embedding(), deployed.embedding())
    found, start = _best(*tables, (public.head(), deployed.head()))
    key = first_layer(public, deployed, found.rotation)
    sure = decisive(*tables, found)
    details: dict[str, Any] = {"start": start, "matched": list(found.matched), "sure": float(sure.mean())}
    if key is not None:
        details["first_layer"] = _described(key, truth)
    return _scored("align", found, tables, sure, truth, clock, details)


def told_folder(public: Opened, deployed: Opened, told: Told, truth: Truth | None = None) -> Recovery:
    """The same from pairs of ids and tokens, which noise on the weights does not hide; scored on the other ids."""
    clock, tables = Clock(), (public.embedding(), deployed.embedding())
    found = with_weights(*tables, told)
    details = {"told": len(told.wire), "matched": list(found.matched)}
    return _scored("known-pairs", found, tables, decisive(*tables, found), truth, clock, details, told)


def _best(
    public: np.ndarray, deployed: np.ndarray, heads: tuple[np.ndarray | None, np.ndarray | None]
) -> tuple[Alignment, str]:
    """The alignment that the attack is surer of, and how it began."""
    first = None
    if heads[0] is not None and heads[1] is not None:
        first = align(public, deployed, (heads[0], heads[1]))
        if decisive(public, deployed, first).mean() >= ENOUGH:
            return first, "invariants"
    second = align(public, deployed)
    if first is not None and decisive(public, deployed, first).mean() > decisive(public, deployed, second).mean():
        return first, "invariants"
    return second, "moments"


def _scored(
    attack: str,
    found: Alignment,
    tables: tuple[np.ndarray, np.ndarray],
    sure: np.ndarray,
    truth: Truth | None,
    clock: Clock,
    details: dict[str, Any],
    told: Told | None = None,
) -> Recovery:
    cost = clock.cost(*tables)
    if truth is None:
        return score_confidence(attack, sure, chance_of(tables[0].shape[1]), cost, details=details)
    error = np.linalg.norm(found.rotation - truth.rotation) / np.linalg.norm(truth.rotation)
    held_out = None if told is None else ~np.isin(np.arange(len(truth.token_map)), told.wire)
    details = details | {"rotation_error": float(error)}
    return score_map(attack, found.token_map, truth.token_map, cost, held_out=held_out, details=details)


def first_layer(public: Opened, deployed: Opened, rotation: np.ndarray) -> LayerKey | None:
    """The keys of the first layer; None for a model without norms before its blocks or without a dense gated MLP."""
    layer = public.spec.layers[0]
    if layer.norms not in ("before", "both") or not layer.mlp.gated or layer.mlp.experts:
        return None
    return layer_key(public.layer(0), deployed.layer(0), 0, layer.attention.kv_heads, rotation)


def _described(key: LayerKey, truth: Truth | None) -> dict[str, float]:
    """`unexplained`: of the values' and up rows' norm. `heads`, `units`: shares that are right."""
    found = {"unexplained": key.residual}
    if truth is not None:
        found["heads"] = float((key.heads == truth.heads(0)).mean())
        found["units"] = float((key.units == truth.units(0)).mean())
    return found
