"""Qwen 2 and 2.5: Llama with biases on query, key and value (arXiv 2407.10671)."""

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
from headrace.spec.model import Layer, ModelSpec


def qwen_windows(config: Config) -> list[int | None]:
    """Qwen slides only with `use_sliding_window`, and then from layer `max_window_layers` on."""
    found = windows(config, lambda layer: layer >= int(config.get("max_window_layers", 28)))
    return found if config.get("use_sliding_window", False) else [None] * len(found)


def build(config: Config) -> ModelSpec:
    mlp, norm = gated_mlp(config), rms(config)
    layers = [Layer(attention(config, window=window, qkv_bias=True), mlp, norm) for window in qwen_windows(config)]
    return decoder(config, "qwen2", layers)


FAMILY = Family("qwen2", ("qwen2",), ("qwen2",), build, LLAMA_HF, LLAMA_GGUF)
