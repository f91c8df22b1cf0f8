"""Keys in a cache: a veil turns and scales each rotary plane by one factor for all tokens, so lengths tell the token.

The collision attack on KV caches (Luo et al. 2025, "Shadow in the Cache") compares cached keys with those that the
public weights give each token. In the first layer a key depends on its token and its position, and positions only
turn its planes: what is left of a veil is one unknown factor a plane and the order of the heads. Both are found by
matching logarithms of lengths and taking the factor anew from the matches, as in iterated closest points.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from headrace.privacy.attacks.artefact import Opened
from headrace.privacy.attacks.confidence import is_decisive
from headrace.privacy.attacks.nearest import nearest
from headrace.privacy.attacks.states import Read
from headrace.spec.errors import InvalidRequest
from headrace.spec.model import Norm

ROUNDS = 10
TINY = 1e-12


def plane_lengths(model: Opened, ids: np.ndarray | None = None) -> np.ndarray:
    """Lengths of the rotary planes of the first layer's keys, float64 [tokens, key heads, planes].

    `ids` int [tokens]: of a text, None for the whole vocabulary. A cache holds the same lengths at any position.
    Raises InvalidRequest for a model without rotary positions.
    """
    layer = model.spec.layers[0]
    attention = layer.attention
    if attention.rope is None:
        raise InvalidRequest(f"{model.name} has no rotary positions; attack its hidden states instead.", "model")
    weights = model.layer(0)
    table = model.tensors["embed.weight"]
    x = (table if ids is None else table.take(ids)).numpy().astype(np.float64) * model.spec.embed_scale
    if layer.norms in ("before", "both"):
        x = _normal(x, layer.norm, weights["layers.0.attn_norm.weight"], weights.get("layers.0.attn_norm.bias"))
    keys = x @ weights["layers.0.attn.k.weight"].T.astype(np.float64) + weights.get("layers.0.attn.k.bias", 0.0)
    heads = keys.reshape(len(keys), attention.kv_heads, attention.head_dim)
    if attention.qk_norm != "none":
        parts = heads if attention.qk_norm == "head" else keys
        norm, gain = Norm("rms", attention.qk_norm_eps), weights["layers.0.attn.k_norm.weight"]
        heads = _normal(parts, norm, gain).reshape(heads.shape)
    half = attention.rope.dim // 2
    return np.hypot(heads[..., :half], heads[..., half : 2 * half])


def _normal(x: np.ndarray, norm: Norm, gain: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """Over the last axis."""
    if norm.kind == "layer":
        x = x - x.mean(axis=-1, keepdims=True)
    normed = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + norm.eps) * gain
    return normed if bias is None else normed + bias


class _Fit(NamedTuple):
    of_rows: np.ndarray
    moved: np.ndarray
    apart: float


def read_keys(observed: np.ndarray, table: np.ndarray) -> Read:
    """The tokens behind cached keys: lengths [tokens, heads, planes] against those of the vocabulary.

    Raises InvalidRequest for tables of other heads or planes.
    """
    if observed.shape[1:] != table.shape[1:]:
        raise InvalidRequest(
            f"Keys of {observed.shape[1:]} and {table.shape[1:]} heads and planes; give two of one model.", "keys"
        )
    seen, known = np.log(observed + TINY), np.log(table + TINY)
    order = _order(seen, known)
    flat = known[:, order].reshape(len(known), -1)
    fit = _fitted(seen.reshape(len(seen), -1), flat)
    sure = [is_decisive(np.linalg.norm(flat - place, axis=1)) for place in fit.moved]
    return Read(fit.of_rows, np.array(sure, bool))


def _order(seen: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The public head in the place of each cached one, int [heads]: those whose lengths fit best."""
    count = seen.shape[1]
    costs = np.array([[_fitted(seen[:, one], known[:, other]).apart for other in range(count)] for one in range(count)])
    return linear_sum_assignment(costs)[1]


def _fitted(seen: np.ndarray, known: np.ndarray) -> _Fit:
    """Rows of `seen` [tokens, d] moved by one factor a dimension onto rows of `known` [vocab, d]."""
    factor = seen.mean(axis=0) - known.mean(axis=0)
    found = nearest(seen - factor, known).of_rows
    for _ in range(ROUNDS):
        factor = np.median(seen - known[found], axis=0)
        fresh = nearest(seen - factor, known).of_rows
        settled = (fresh == found).all()
        found = fresh
        if settled:
            break
    moved = seen - factor
    return _Fit(found, moved, float(np.median(np.linalg.norm(moved - known[found], axis=1))))
