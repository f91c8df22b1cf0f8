"""Gemma 2: norms on both sides of each block, soft-capped logits, every other layer slides (arXiv 2408.00118)."""

from headrace.model.config import Config
from headrace.model.families.common import (
    LLAMA_GGUF,
    LLAMA_HF,
    Family,
    attention,
    decoder,
    depth,
    gated_mlp,
    rms,
    windows,
)
from headrace.model.naming import Names, shift
from headrace.spec.model import Layer, ModelSpec

GEMMA_HF: Names = LLAMA_HF | {
    "layers.N.attn_norm": ("layers.N.input_layernorm", shift),
    "layers.N.attn_post_norm": ("layers.N.post_attention_layernorm", shift),
    "layers.N.mlp_norm": ("layers.N.pre_feedforward_layernorm", shift),
    "layers.N.mlp_post_norm": ("layers.N.post_feedforward_layernorm", shift),
    "layers.N.attn.q_norm": ("layers.N.self_attn.q_norm", shift),
    "layers.N.attn.k_norm": ("layers.N.self_attn.k_norm", shift),
    "norm": ("norm", shift),
}
"""Published checkpoints store gain - 1; GGUF files store the gain."""


def gemma_scale(config: Config, largest: int) -> float:
    """Query scale. GGUF does not store it: the largest model (by depth) divides by hidden / heads."""
    if not config.gguf:
        return float(config.get("query_pre_attn_scalar", 256)) ** -0.5
    heads = int(config.need("num_attention_heads"))
    if depth(config) == largest:
        return float((config.need("hidden_size") / heads) ** -0.5)
    return float(config.need("head_dim")) ** -0.5


def build(config: Config) -> ModelSpec:
    for key, value in {"head_dim": 256, "tie_word_embeddings": True, "hidden_activation": "gelu_pytorch_tanh"}.items():
        config.values[key] = config.get(key, value)
    config.values.pop("hidden_act", None)
    mlp, norm = gated_mlp(config), rms(config)
    caps = (50.0, 30.0)
    cap, final_cap = config.get("attn_logit_softcapping"), config.get("final_logit_softcapping")
    if "attn_logit_softcapping" not in config.values:
        cap, final_cap = caps
    scale, bias = gemma_scale(config, largest=46), bool(config.get("attention_bias", False))
    layers = [
        Layer(
            attention(config, window=window, scale=scale, softcap=cap, qkv_bias=bias, out_bias=bias), mlp, norm, "both"
        )
        for window in windows(config, lambda layer: layer % 2 == 0)
    ]
    embed_scale = float(config.need("hidden_size")) ** 0.5
    return decoder(config, "gemma2", layers, embed_scale=embed_scale, logit_softcap=final_cap)


FAMILY = Family("gemma2", ("gemma2",), ("gemma2",), build, GEMMA_HF, LLAMA_GGUF)
