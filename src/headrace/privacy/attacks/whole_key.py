"""The whole key: once the rotation of the residual stream is known, every other key of a veil is a linear solve.

Heads and units are recognised by what their keys cannot change: a head by the space its value rows span, a unit of
the gated MLP by the direction of its gate row. Keys per head and per unit therefore add nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from headrace.privacy.attacks.nearest import nearest
from headrace.spec.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class LayerKey:
    """For each deployed KV head and MLP unit the public one, and what was done to it.

    `heads` int [kv heads]; `values` float64 [kv heads, hd, hd], deployed value rows = values[h] @ public ones;
    `units` int [F]; `scales` float64 [F], of the up branch. `residual`: what these leave unexplained of the value
    and up rows, as a share of their norm.
    """

    heads: np.ndarray
    values: np.ndarray
    units: np.ndarray
    scales: np.ndarray
    residual: float


def layer_key(
    public: Mapping[str, np.ndarray],
    deployed: Mapping[str, np.ndarray],
    layer: int,
    kv_heads: int,
    rotation: np.ndarray,
) -> LayerKey:
    """The keys of one layer of a pre-norm decoder with a gated MLP.

    Weights [out, in] by their canonical names (`layers.0.attn.v.weight`); a norm's gain is folded in here where a
    model still has it. Raises InvalidRequest where a model lacks a weight or the two differ in shape.
    """
    tables = {name: _both(public, deployed, layer, *name, rotation) for name in (_VALUE, _GATE, _UP)}
    heads, values, missed_values = _heads(*tables[_VALUE], kv_heads)
    known_gate, gate = tables[_GATE]
    units = nearest(_directions(gate), _directions(known_gate)).of_rows
    known_up, up = tables[_UP]
    scales = np.einsum("fd,fd->f", up, known_up[units]) / np.einsum("fd,fd->f", known_up[units], known_up[units])
    missed_up = up - scales[:, None] * known_up[units]
    residual = np.hypot(np.linalg.norm(missed_up), missed_values) / np.hypot(
        np.linalg.norm(up), np.linalg.norm(tables[_VALUE][1])
    )
    return LayerKey(heads, values, units, scales, float(residual))


_VALUE, _GATE, _UP = ("attn_norm", "attn.v"), ("mlp_norm", "mlp.gate"), ("mlp_norm", "mlp.up")


def _both(
    public: Mapping[str, np.ndarray],
    deployed: Mapping[str, np.ndarray],
    layer: int,
    norm: str,
    weight: str,
    rotation: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Public rows carried into the deployed basis, and deployed rows, float64 [out, d] each."""
    found = []
    for weights in (public, deployed):
        try:
            gain, table = (weights[f"layers.{layer}.{name}.weight"] for name in (norm, weight))
        except KeyError as error:
            raise InvalidRequest(f"A model lacks {error}; give decoders with a gated MLP.", "layer") from None
        found.append(table.astype(np.float64) * gain)
    if found[0].shape != found[1].shape:
        raise InvalidRequest(f"layers.{layer}.{weight} differs in shape; give two of one model.", "layer")
    return found[0] @ rotation, found[1]


def _heads(public: np.ndarray, deployed: np.ndarray, kv_heads: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Heads matched by the overlap of the spaces their rows span; a key of GL(hd) leaves that as it is."""
    known, seen = (table.reshape(kv_heads, -1, table.shape[1]) for table in (public, deployed))
    bases = [np.linalg.qr(heads.swapaxes(1, 2))[0] for heads in (seen, known)]
    overlap = (np.einsum("hdi,kdj->hkij", *bases) ** 2).sum(axis=(2, 3))
    heads = linear_sum_assignment(overlap, maximize=True)[1]
    values = seen @ np.linalg.pinv(known[heads])
    return heads, values, float(np.linalg.norm(seen - values @ known[heads]))


def _directions(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
