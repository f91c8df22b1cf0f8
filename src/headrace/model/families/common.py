"""What most families share: settings of a decoder, and the two usual namings of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.model.config import Config, activation
from headrace.model.naming import Names
from headrace.model.rope_config import read_rope
from headrace.spec.model import Attention, Layer, Mlp, ModelSpec, Norm


@dataclass(frozen=True)
class Family:
    """One architecture: how its settings become a ModelSpec and how its files name the weights.

    `model_types` are values of `model_type` in config.json, `architectures` of `general.architecture`
    in GGUF. `renamed`: the family's own config keys -> the usual ones.
    """

    name: str
    model_types: tuple[str, ...]
    architectures: tuple[str, ...]
    build: Callable[[Config], ModelSpec]
    hf: Names
    gguf: Names
    renamed: dict[str, str] = field(default_factory=dict)


LLAMA_HF: Names = {
    "embed": "embed_tokens",
    "layers.N.attn_norm": "layers.N.input_layernorm",
    "layers.N.attn.q": "layers.N.self_attn.q_proj",
    "layers.N.attn.k": "layers.N.self_attn.k_proj",
    "layers.N.attn.v": "layers.N.self_attn.v_proj",
    "layers.N.attn.o": "layers.N.self_attn.o_proj",
    "layers.N.attn.q_norm": "layers.N.self_attn.q_norm",
    "layers.N.attn.k_norm": "layers.N.self_attn.k_norm",
    "layers.N.mlp_norm": "layers.N.post_attention_layernorm",
    "layers.N.mlp.gate": "layers.N.mlp.gate_proj",
    "layers.N.mlp.up": "layers.N.mlp.up_proj",
    "layers.N.mlp.down": "layers.N.mlp.down_proj",
    "norm": "norm",
    "head": "lm_head",
}
LLAMA_GGUF: Names = {
    "embed": "token_embd",
    "layers.N.attn_norm": "blk.N.attn_norm",
    "layers.N.attn.q": "blk.N.attn_q",
    "layers.N.attn.k": "blk.N.attn_k",
    "layers.N.attn.v": "blk.N.attn_v",
    "layers.N.attn.o": "blk.N.attn_output",
    "layers.N.attn.q_norm": "blk.N.attn_q_norm",
    "layers.N.attn.k_norm": "blk.N.attn_k_norm",
    "layers.N.attn_post_norm": "blk.N.post_attention_norm",
    "layers.N.mlp_norm": "blk.N.ffn_norm",
    "layers.N.mlp_post_norm": "blk.N.post_ffw_norm",
    "layers.N.mlp.gate": "blk.N.ffn_gate",
    "layers.N.mlp.up": "blk.N.ffn_up",
    "layers.N.mlp.down": "blk.N.ffn_down",
    "layers.N.mlp.router": "blk.N.ffn_gate_inp",
    "layers.N.mlp.experts.gate": "blk.N.ffn_gate_exps.weight",
    "layers.N.mlp.experts.up": "blk.N.ffn_up_exps.weight",
    "layers.N.mlp.experts.down": "blk.N.ffn_down_exps.weight",
    "norm": "output_norm",
    "head": "output",
}


def attention(config: Config, theta: float = 10000.0, layer_type: str | None = None, **changes: Any) -> Attention:
    """The usual attention: grouped heads, rotary positions, scale 1 / sqrt(head size)."""
    heads = int(config.need("num_attention_heads"))
    head_dim = int(config.get("head_dim") or config.need("hidden_size") // heads)
    config.expect("value_dim", head_dim)
    settings: dict[str, Any] = {
        "heads": heads,
        "kv_heads": int(config.get("num_key_value_heads", heads)),
        "head_dim": head_dim,
        "scale": float(config.get("attention_scale") or head_dim**-0.5),
    }
    if "rope" not in changes:
        settings["rope"] = read_rope(config, head_dim, layer_type, theta)
    return Attention(**(settings | changes))


def gated_mlp(config: Config, **changes: Any) -> Mlp:
    keys = ("hidden_act", "hidden_activation")
    settings: dict[str, Any] = {"activation": activation(config, keys, "silu")}
    if "width" not in changes:
        settings["width"] = int(config.need("intermediate_size"))
    return Mlp(**(settings | changes))


def rms(config: Config, default: float = 1e-6) -> Norm:
    return Norm("rms", float(config.get("rms_norm_eps", default)))


def decoder(config: Config, family: str, layers: Sequence[Layer], **changes: Any) -> ModelSpec:
    """A decoder with a final norm like that of its first layer. Refuses settings nobody has read."""
    config.expect("causal", True)
    settings: dict[str, Any] = {
        "family": family,
        "hidden": int(config.need("hidden_size")),
        "vocab": int(config.need("vocab_size")),
        "context": int(config.need("max_position_embeddings")),
        "layers": tuple(layers),
        "tied": bool(config.get("tie_word_embeddings", False)),
        "final_norm": layers[0].norm,
    }
    config.finish()
    return ModelSpec(**(settings | changes))


def depth(config: Config) -> int:
    return int(config.need("num_hidden_layers"))


def windows(config: Config, fallback: Callable[[int], bool]) -> list[int | None]:
    """Per layer the window, or None for full attention: by `layer_types`, else where `fallback(layer)`."""
    window, count = config.get("sliding_window"), depth(config)
    kinds = config.get("layer_types")
    if kinds is None:
        slides = [fallback(layer) for layer in range(count)]
    else:
        if len(kinds) != count:
            raise config.refusal("layer_types", kinds)
        for kind in kinds:
            if kind not in ("sliding_attention", "full_attention"):
                raise config.refusal("layer_types", kind)
        slides = [kind == "sliding_attention" for kind in kinds]
    return [int(window) if window and slide else None for slide in slides]
