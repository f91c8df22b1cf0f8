"""A llama-shaped decoder as plain array code: the same text in numpy, and in JAX on secret shares.

Token rows are one-hot: a row of a secret table is taken by a product with it, so that nobody learns which. The gains
and sizes of norms, 1 / sqrt(head_dim) and the exponential's scale are in the matrices beforehand (`weights.Prepared`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from headrace.privacy.mpc.approximations import Functions, combine

BLOCK_WEIGHTS = ("q", "k", "v", "o", "gate", "up", "down")
MASKED = -1000.0
"""Stands for the score of a key after the query while the largest one is looked for."""


Calm: TypeAlias = tuple[float, float]
"""Public powers of two by which a norm scales its input before it is squared, and the sum of the squares after.

The sum must stay below 2^20, and its root's inverse is exact only where it is no small number.
"""

STILL: Calm = (1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Shape:
    """One decoder's sizes. `gated`: the activation of `gate` multiplies `up`; else it is applied to `up` alone.

    `calm`: of the two norms of a layer, of which the head takes the first.
    """

    tokens: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    width: int
    vocab: int
    layers: int
    rope_theta: float
    eps: float
    activation: str = "silu"
    gated: bool = True
    calm: tuple[Calm, Calm] = (STILL, STILL)

    def weights(self) -> tuple[str, ...]:
        return tuple(name for name in BLOCK_WEIGHTS if self.gated or name != "gate")


def embed(xp: Any, onehot_tv: Any, table_vd: Any) -> Any:
    """Rows of the table by one-hot tokens: [tokens, hidden]."""
    return xp.matmul(onehot_tv, table_vd)


def block(xp: Any, functions: Functions, shape: Shape, h_td: Any, weights: Mapping[str, Any]) -> Any:
    """One decoder layer: attention over the tokens so far, then the feed-forward part."""
    h_td = after_attention(xp, functions, shape, h_td, weights)
    return h_td + feed_forward(xp, functions, shape, normed(xp, functions, shape, h_td, 1), weights)


def after_attention(xp: Any, functions: Functions, shape: Shape, h_td: Any, weights: Mapping[str, Any]) -> Any:
    """The hidden state between a layer's two parts."""
    return h_td + attention(xp, functions, shape, normed(xp, functions, shape, h_td, 0), weights)


def head(xp: Any, functions: Functions, shape: Shape, h_td: Any, table_dv: Any) -> Any:
    """Logits [tokens, vocab]; the final norm's gain is in the table."""
    return xp.matmul(normed(xp, functions, shape, h_td, 0), table_dv)


def normed(xp: Any, functions: Functions, shape: Shape, h_td: Any, which: int) -> Any:
    """Rows of length 1 / sqrt(after): an RMS norm but for its gain and a public factor, which the next matrix has.

    One step of Newton's makes good for the protocol of 1 / sqrt(x), whose polynomial is exact to 3e-4 in fixed point.
    """
    before, after = shape.calm[which]
    # Two halves and no product, whose factor the compiler would move to where numbers are small.
    u_td = h_td if before == 1 else combine(xp, [before / 2] * 2, [h_td, h_td])
    squares = xp.sum(u_td * u_td, axis=-1, keepdims=True)
    x = (squares if after == 1 else squares * after) + shape.eps * shape.hidden * before**2 * after
    y = functions.rsqrt(x)
    y = y + y * (1 - (x * y) * y) * 0.5
    return u_td * y


def attention(xp: Any, functions: Functions, shape: Shape, x_td: Any, weights: Mapping[str, Any]) -> Any:
    rows = (shape.tokens, -1, shape.head_dim)
    q_htd = rotated(xp, shape, xp.matmul(x_td, weights["q"]).reshape(rows).swapaxes(0, 1))
    k_htd = rotated(xp, shape, xp.matmul(x_td, weights["k"]).reshape(rows).swapaxes(0, 1))
    v_htd = xp.matmul(x_td, weights["v"]).reshape(rows).swapaxes(0, 1)
    shared = shape.heads // shape.kv_heads
    scores_hts = xp.matmul(q_htd, xp.repeat(k_htd, shared, axis=0).swapaxes(1, 2))
    mixed_htd = xp.matmul(softmax(xp, functions, shape, scores_hts), xp.repeat(v_htd, shared, axis=0))
    return xp.matmul(mixed_htd.swapaxes(0, 1).reshape(shape.tokens, -1), weights["o"])


def softmax(xp: Any, functions: Functions, shape: Shape, scores_hts: Any) -> Any:
    """Over the keys up to the query's own; `scores` come divided by the exponential's scale."""
    causal_ts = np.tril(np.ones((shape.tokens, shape.tokens), bool))
    seen = xp.broadcast_to(causal_ts, scores_hts.shape)
    largest = xp.max(xp.where(seen, scores_hts, MASKED), axis=-1, keepdims=True)
    weights = xp.where(seen, functions.exp(xp.where(seen, scores_hts - largest, -1.0)), 0.0)
    return weights * functions.reciprocal(xp.sum(weights, axis=-1, keepdims=True))


def rotated(xp: Any, shape: Shape, x_htd: Any) -> Any:
    """Rotary positions 0, 1, ... on the two halves of each head (RoFormer, arXiv 2104.09864)."""
    half = shape.head_dim // 2
    angles = np.arange(shape.tokens)[:, None] * shape.rope_theta ** (-np.arange(half) / half)
    cos, sin = (np.concatenate([f(angles)] * 2, axis=-1).astype(np.float32) for f in (np.cos, np.sin))
    turned = xp.concatenate([-x_htd[..., half:], x_htd[..., :half]], axis=-1)
    return x_htd * cos + turned * sin


def feed_forward(xp: Any, functions: Functions, shape: Shape, x_td: Any, weights: Mapping[str, Any]) -> Any:
    up = xp.matmul(x_td, weights["up"])
    if not shape.gated:
        return xp.matmul(functions.activation(shape.activation, up), weights["down"])
    gate = functions.activation(shape.activation, xp.matmul(x_td, weights["gate"]))
    return xp.matmul(gate * up, weights["down"])
