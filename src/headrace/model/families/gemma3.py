"""Gemma 3, its text part: five sliding layers to a full one, each kind with a rope of its own (arXiv 2503.19786)."""

from typing import Any

from headrace.model.config import Config
from headrace.model.families.common import LLAMA_GGUF, Family, attention, decoder, depth, gated_mlp, rms, windows
from headrace.model.families.gemma2 import GEMMA_HF, gemma_scale
from headrace.model.rope_config import read_rope
from headrace.spec.model import Layer, ModelSpec, Rope

_DEFAULTS: dict[str, Any] = {
    "head_dim": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 262208,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": True,
    "hidden_activation": "gelu_pytorch_tanh",
}
"""What published config files leave out, because the class has it as default."""


def _full_layers(config: Config) -> set[int]:
    pattern = config.get("sliding_window_pattern", config.get("_sliding_window_pattern", 6))
    if isinstance(pattern, list):
        return {layer for layer, slides in enumerate(pattern) if not slides}
    return {layer for layer in range(depth(config)) if (layer + 1) % int(pattern) == 0}


def _ropes(config: Config, head_dim: int) -> tuple[Rope, Rope]:
    """(sliding, full). Scaling stretches the full layers alone."""
    local = float(config.get("rope_local_base_freq", 10000.0))
    nested = any(isinstance(value, dict) for value in (config.get("rope_parameters") or {}).values())
    full = read_rope(config, head_dim, "full_attention", 1e6)
    if nested:
        return read_rope(config, head_dim, "sliding_attention", local), full
    return Rope(full.dim, local), full


def build(config: Config) -> ModelSpec:
    if not config.gguf:
        config.values = _DEFAULTS | config.values
    config.values["hidden_activation"] = config.get("hidden_activation", "gelu_pytorch_tanh")
    mlp, norm = gated_mlp(config), rms(config)
    scale, bias = gemma_scale(config, largest=62), bool(config.get("attention_bias", False))
    sliding, full = _ropes(config, int(config.need("head_dim")))
    full_layers = _full_layers(config)
    parts = [
        attention(
            config, rope=full if window is None else sliding, window=window, scale=scale, qk_norm="head",
            qk_norm_eps=norm.eps, softcap=config.get("attn_logit_softcapping"), qkv_bias=bias, out_bias=bias,
        )
        for window in windows(config, lambda layer: layer not in full_layers)
    ]  # fmt: skip
    layers = [Layer(part, mlp, norm, "both") for part in parts]
    embed_scale = float(config.need("hidden_size")) ** 0.5
    cap = config.get("final_logit_softcapping")
    return decoder(config, "gemma3", layers, embed_scale=embed_scale, logit_softcap=cap)


FAMILY = Family("gemma3", ("gemma3_text", "gemma3"), ("gemma3",), build, GEMMA_HF, LLAMA_GGUF)
