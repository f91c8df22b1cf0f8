"""Attacks on a veiled folder by someone who has the public weights as well."""

from __future__ import annotations

from collections.abc import Mapping
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
    """The token map and the rotation from the two embeddings, then the keys of all layers.

    Invariants of single tokens are the start, moments where these do not lead on. Without `truth` what counts is
    how many ids the attack is sure of. Raises InvalidRequest for tables of different shape.
    """
    clock, tables = Clock(), (public.embedding(), deployed.embedding())
    found, start = _best(*tables, (public.head(), deployed.head()))
    keys = layer_keys(public, deployed, found.rotation)
    sure = decisive(*tables, found)
    details: dict[str, Any] = {"start": start, "matched": list(found.matched), "sure": float(sure.mean())}
    if keys:
        details["keys"] = _described(keys, truth)
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


def layer_keys(public: Opened, deployed: Opened, rotation: np.ndarray) -> dict[int, LayerKey]:
    """Layer -> its keys, for every one that has norms before its blocks and a gated MLP; none of another shape."""
    found: dict[int, LayerKey] = {}
    if _shapes(public) != _shapes(deployed):
        return found
    for number, layer in enumerate(public.spec.layers):
        if layer.norms in ("before", "both") and layer.mlp.gated and not layer.mlp.experts:
            weights = public.layer(number), deployed.layer(number)
            found[number] = layer_key(*weights, number, layer.attention.kv_heads, rotation)
    return found


def _shapes(model: Opened) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in model.tensors.items() if name.startswith("layers.")}


def _described(keys: Mapping[int, LayerKey], truth: Truth | None) -> dict[str, float]:
    """`unexplained`: of the norm of values' and up rows, at the worst. `heads`, `units`: shares that are right."""
    found: dict[str, float] = {"layers": len(keys), "unexplained": max(key.residual for key in keys.values())}
    if truth is not None:
        found["heads"] = float(np.mean([(key.heads == truth.heads(at)).mean() for at, key in keys.items()]))
        found["units"] = float(np.mean([(key.units == truth.units(at)).mean() for at, key in keys.items()]))
    return found
