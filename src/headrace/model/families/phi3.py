"""Phi-3 and Phi-4-mini: fused projections, partial and long rope (arXiv 2404.14219)."""

from headrace.model.config import Config
from headrace.model.families.common import (
    LLAMA_GGUF,
    LLAMA_HF,
    Family,
    attention,
    decoder,
    gated_mlp,
    rms,
    windows,
)
from headrace.model.naming import Names, half, qkv
from headrace.spec.model import Layer, ModelSpec


def build(config: Config) -> ModelSpec:
    config.expect("attention_bias", False)
    mlp, norm = gated_mlp(config), rms(config, 1e-5)
    layers = [Layer(attention(config, window=window), mlp, norm) for window in windows(config, lambda layer: True)]
    config.get("original_max_position_embeddings")
    return decoder(config, "phi3", layers)


def _fused(qkv_stem: str, gate_up_stem: str) -> Names:
    names: Names = {f"layers.N.attn.{part}": (qkv_stem, qkv(part)) for part in "qkv"}
    return names | {"layers.N.mlp.gate": (gate_up_stem, half(0)), "layers.N.mlp.up": (gate_up_stem, half(1))}


FAMILY = Family(
    "phi3",
    ("phi3",),
    ("phi3",),
    build,
    LLAMA_HF | _fused("layers.N.self_attn.qkv_proj", "layers.N.mlp.gate_up_proj"),
    LLAMA_GGUF | _fused("blk.N.attn_qkv", "blk.N.ffn_up"),
)
