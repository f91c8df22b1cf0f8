"""What a model is: a frozen description from which a Program is compiled.

Weights have one canonical form whatever file they came from (see `spec.program` for the names):
matrices are [out, in], query and key heads rotate their two halves (NeoX order), norm gains are
the factor itself (a file that stores gain - 1 is shifted at load), fused projections are split,
experts are stacked [expert, out, in].
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

PAGE_TOKENS = 16
"""Tokens in one page of state, and logical positions in one attention block."""


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding of the first `dim` values of a head (RoFormer, arXiv 2104.09864).

    `scaling` names how frequencies are stretched beyond the `original` trained context:
    linear (2306.15595), dynamic NTK, llama3, yarn (2309.00071), longrope (2402.13753).
    """

    dim: int
    theta: float = 10000.0
    scaling: Literal["none", "linear", "dynamic", "llama3", "yarn", "longrope"] = "none"
    factor: float = 1.0
    original: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    truncate: bool = True
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    factors: tuple[float, ...] = ()
    """Per-frequency divisors, `dim / 2` of them (longrope; llama3 from a GGUF file)."""


@dataclass(frozen=True, slots=True)
class Norm:
    """RMS norm (no bias) or layer norm (with bias where `bias`)."""

    kind: Literal["rms", "layer"] = "rms"
    eps: float = 1e-6
    bias: bool = False


@dataclass(frozen=True, slots=True)
class Attention:
    """One layer's attention. `window` counts the keys a query sees, itself included."""

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    rope: Rope | None = None
    window: int | None = None
    softcap: float | None = None
    qk_norm: Literal["none", "head", "full"] = "none"
    qk_norm_eps: float = 1e-6
    qkv_bias: bool = False
    out_bias: bool = False
    causal: bool = True


@dataclass(frozen=True, slots=True)
class Mlp:
    """Feed-forward block; `gated` multiplies the activated gate with an up projection.

    With `experts` > 0 it is a mixture: `top_k` experts a token, router softmax over all experts,
    chosen weights renormalised to 1 where `renormalise` (Mixtral, arXiv 2401.04088).
    """

    width: int
    activation: Literal["silu", "gelu", "gelu_tanh", "relu"] = "silu"
    gated: bool = True
    bias: bool = False
    experts: int = 0
    top_k: int = 0
    renormalise: bool = True


@dataclass(frozen=True, slots=True)
class Layer:
    """Attention and feed-forward with their norms.

    `before`: norms on the block's input (Llama); `after`: norms on the block's output before it is
    added (Olmo 2; Gemma has both); `on_residual`: norms on the sum itself (BERT).
    """

    attention: Attention
    mlp: Mlp
    norm: Norm
    norms: Literal["before", "after", "both", "on_residual"] = "before"


@dataclass(frozen=True, slots=True)
class StateGroup:
    """Layers whose state is paged together: `append` keeps all positions, `window` needs the last n.

    Bytes of a page are PAGE_TOKENS * values_per_token * bytes of the KV type.
    """

    kind: Literal["append", "window"]
    layers: tuple[int, ...]
    values_per_token: int
    window: int | None = None


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A decoder, or with `causal=False` an encoder."""

    family: str
    hidden: int
    vocab: int
    context: int
    layers: tuple[Layer, ...]
    tied: bool = False
    embed_scale: float = 1.0
    learned_positions: int = 0
    token_types: int = 0
    embed_norm: Norm | None = None
    final_norm: Norm | None = None
    head_bias: bool = False
    logit_softcap: float | None = None
    logit_scale: float = 1.0
    causal: bool = True
    name: str = ""
    bos: int | None = None
    eos: tuple[int, ...] = field(default=())

    def state_groups(self) -> tuple[StateGroup, ...]:
        """Layers grouped by window, full attention first."""
        by_window: dict[int | None, list[int]] = {}
        for index, layer in enumerate(self.layers):
            by_window.setdefault(layer.attention.window, []).append(index)
        ordered = sorted(by_window.items(), key=lambda item: item[0] or 0)
        return tuple(
            StateGroup(
                "append" if window is None else "window",
                tuple(indices),
                sum(2 * self.layers[i].attention.kv_heads * self.layers[i].attention.head_dim for i in indices),
                window,
            )
            for window, indices in ordered
        )
