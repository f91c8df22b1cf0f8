"""OLMo 2: norms on each block's output, and on the whole query and key (arXiv 2501.00656)."""

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
from headrace.spec.model import Layer, ModelSpec


def build(config: Config) -> ModelSpec:
    norm, bias = rms(config, 1e-5), bool(config.get("attention_bias", False))
    part = attention(config, qkv_bias=bias, out_bias=bias, qk_norm="full", qk_norm_eps=norm.eps)
    return decoder(config, "olmo2", [Layer(part, gated_mlp(config), norm, "after")] * depth(config))


_HF = LLAMA_HF | {
    "layers.N.attn_post_norm": "layers.N.post_attention_layernorm",
    "layers.N.mlp_post_norm": "layers.N.post_feedforward_layernorm",
}
FAMILY = Family("olmo2", ("olmo2",), ("olmo2",), build, _HF, LLAMA_GGUF)
