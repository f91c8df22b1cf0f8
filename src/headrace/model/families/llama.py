"""Llama 1 to 3 and its many descendants in the same shape (arXiv 2302.13971, 2407.21783)."""

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
)
from headrace.model.families.mixtral import build as build_mixtral
from headrace.model.naming import Names, experts, unrotate
from headrace.spec.model import Layer, ModelSpec


def build(config: Config) -> ModelSpec:
    if config.gguf and config.get("num_local_experts", 0):
        return build_mixtral(config)
    bias = bool(config.get("attention_bias", False))
    part = attention(config, qkv_bias=bias, out_bias=bias)
    layer = Layer(part, gated_mlp(config, bias=bool(config.get("mlp_bias", False))), rms(config))
    return decoder(config, "llama", [layer] * depth(config))


ROTATED_GGUF: Names = LLAMA_GGUF | {
    "layers.N.attn.q": ("blk.N.attn_q", unrotate("q")),
    "layers.N.attn.k": ("blk.N.attn_k", unrotate("k")),
    "layers.N.mlp.experts.gate": experts("blk.N.ffn_gate.{E}.weight", "blk.N.ffn_gate_exps.weight"),
    "layers.N.mlp.experts.up": experts("blk.N.ffn_up.{E}.weight", "blk.N.ffn_up_exps.weight"),
    "layers.N.mlp.experts.down": experts("blk.N.ffn_down.{E}.weight", "blk.N.ffn_down_exps.weight"),
}
"""GGUF keeps these models' query and key rows in neighbour pairs; older mixtures have a tensor an expert."""

FAMILY = Family("llama", ("llama",), ("llama",), build, LLAMA_HF, ROTATED_GGUF)
