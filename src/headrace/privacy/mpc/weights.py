"""A loaded model's weights as a computation on shares takes them, and what it computes in plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from headrace.model.loading import LoadedModel
from headrace.privacy.mpc import transformer
from headrace.privacy.mpc.approximations import EXP_SCALE, Functions, exact
from headrace.privacy.mpc.transformer import STILL, Calm, Shape
from headrace.spec.errors import UnsupportedModel
from headrace.spec.model import Layer, ModelSpec

CALMING_TOKENS = 16
MOST_SQUARES, USUAL_SQUARES = 2.0**14, 64.0
"""Of the longest row of these tokens: more is scaled before it is squared, so that rows 8 times as long still fit; what
is between is scaled after."""


def shape_of(spec: ModelSpec, tokens: int) -> Shape:
    """The sizes of a llama-shaped decoder. Raises UnsupportedModel for any other."""
    layer = spec.layers[0]
    if not _llama_shaped(spec, layer) or any(other != layer for other in spec.layers):
        raise UnsupportedModel(
            f"{spec.name or spec.family} is not llama-shaped (RMS norms before equal layers, plain rotary positions, "
            "SiLU or GELU); on secret shares run a model such as smollm2-135m."
        )
    attention, rope = layer.attention, layer.attention.rope
    assert rope is not None
    return Shape(
        tokens, spec.hidden, attention.heads, attention.kv_heads, attention.head_dim, layer.mlp.width, spec.vocab,
        len(spec.layers), rope.theta, layer.norm.eps, layer.mlp.activation, layer.mlp.gated,
    )  # fmt: skip


def _llama_shaped(spec: ModelSpec, layer: Layer) -> bool:
    attention, mlp, rope = layer.attention, layer.mlp, layer.attention.rope
    plain_rope = rope is not None and rope.scaling == "none" and not rope.factors and rope.dim == attention.head_dim
    plain_attention = attention.causal and attention.qk_norm == "none" and attention.softcap is None
    bare = not (attention.qkv_bias or attention.out_bias or mlp.bias or mlp.experts or spec.head_bias)
    plain_ends = spec.embed_scale == spec.logit_scale == 1 and not spec.learned_positions and not spec.logit_softcap
    normed = layer.norms == "before" and layer.norm.kind == "rms" and spec.final_norm == layer.norm
    known = mlp.activation in ("silu", "gelu") and attention.window is None and spec.embed_norm is None
    return plain_rope and plain_attention and bare and plain_ends and normed and known


class Prepared:
    """Matrices [in, out] float32 with what is public of them folded in: norm gains and the scales of scores.

    `calm`: of every norm in order, the head's last.
    """

    def __init__(
        self, loaded: LoadedModel, shape: Shape, exp_scale: float = 1.0, calm: Sequence[Calm] | None = None
    ) -> None:
        self._held: dict[str, Any] = loaded.weights.weights  # type: ignore[attr-defined]
        # Half of it on either side of the product: fixed point holds no small numbers well.
        self._shape, self._scale = shape, (loaded.spec.layers[0].attention.scale / exp_scale) ** 0.5
        self._table = "embed.weight" if loaded.spec.tied else "head.weight"
        self.calm = list(calm or [STILL] * (2 * shape.layers + 1))

    def embedding(self) -> np.ndarray:
        """[vocab, hidden]."""
        return self._of("embed.weight")

    def head(self) -> np.ndarray:
        """[hidden, vocab]."""
        return (self._of(self._table) * self._gain("norm", 2 * self._shape.layers)).T

    def layer(self, index: int) -> dict[str, np.ndarray]:
        base, found = f"layers.{index}", {}
        attention, mlp = self._gain(f"{base}.attn_norm", 2 * index), self._gain(f"{base}.mlp_norm", 2 * index + 1)
        for name in self._shape.weights():
            part = "attn" if name in "qkvo" else "mlp"
            matrix = self._of(f"{base}.{part}.{name}.weight")
            gain = attention if name in "qkv" else mlp if name in ("gate", "up") else 1
            found[name] = (matrix * gain).T * (self._scale if name in "qk" else 1)
        return found

    def _gain(self, norm: str, number: int) -> np.ndarray:
        return self._of(f"{norm}.weight") * (self._shape.hidden * self.calm[number][1]) ** 0.5

    def _of(self, name: str) -> np.ndarray:
        array: np.ndarray = self._held[name].numpy()
        return array


def for_shares(loaded: LoadedModel, shape: Shape) -> Prepared:
    """Prepared for approximate functions, calmed by what the model makes of its first tokens: no prompt goes in."""
    calm = calming(Prepared(loaded, shape), shape, range(min(CALMING_TOKENS, shape.vocab)))
    return Prepared(loaded, shape, EXP_SCALE, calm)


def onehot(tokens: Sequence[int], vocab: int) -> np.ndarray:
    """float32 [tokens, vocab]."""
    found = np.zeros((len(tokens), vocab), np.float32)
    found[np.arange(len(tokens)), list(tokens)] = 1
    return found


def plain_states(weights: Prepared, shape: Shape, functions: Functions, tokens: Sequence[int]) -> list[np.ndarray]:
    """The hidden states before the first block and after each: [layers + 1] of float32 [tokens, hidden]."""
    states = [weights.embedding()[list(tokens)]]
    for index in range(shape.layers):
        states.append(transformer.block(np, functions, shape, states[-1], weights.layer(index)))
    return states


def calming(weights: Prepared, shape: Shape, tokens: Sequence[int]) -> list[Calm]:
    """For every norm in order, the head's last, by the states of these tokens in plain numbers."""
    functions, found = exact(), []
    shape = replace(shape, tokens=len(tokens))
    h_td = weights.embedding()[list(tokens)]
    for index in range(shape.layers):
        layer = weights.layer(index)
        found += [_calm(h_td), _calm(transformer.after_attention(np, functions, shape, h_td, layer))]
        h_td = transformer.block(np, functions, shape, h_td, layer)
    return [*found, _calm(h_td)]


def _calm(h_td: np.ndarray) -> Calm:
    most, before, after = float((h_td.astype(np.float64) ** 2).sum(-1).max()), 1.0, 1.0
    while most * before**2 > MOST_SQUARES:
        before /= 16
    while before == 1 and most * after > USUAL_SQUARES:
        after /= 4
    return before, after


def plain_logits(weights: Prepared, shape: Shape, functions: Functions, tokens: Sequence[int]) -> np.ndarray:
    """float32 [tokens, vocab]."""
    states = plain_states(weights, shape, functions, tokens)
    return transformer.head(np, functions, shape, states[-1], weights.head())
