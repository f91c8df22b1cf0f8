"""Qwen 3: Llama with a norm on each query and key head (arXiv 2505.09388)."""

from headrace.model.config import Config
from headrace.model.families.common import LLAMA_GGUF, LLAMA_HF, Family, attention, decoder, gated_mlp, rms
from headrace.model.families.qwen2 import qwen_windows
from headrace.spec.model import Attention, Layer, ModelSpec


def qwen3_attention(config: Config, window: int | None) -> Attention:
    bias, eps = bool(config.get("attention_bias", False)), rms(config).eps
    return attention(config, window=window, qkv_bias=bias, out_bias=bias, qk_norm="head", qk_norm_eps=eps)


def build(config: Config) -> ModelSpec:
    config.values.setdefault("head_dim", None if config.gguf else 128)
    mlp, norm = gated_mlp(config), rms(config)
    layers = [Layer(qwen3_attention(config, window), mlp, norm) for window in qwen_windows(config)]
    return decoder(config, "qwen3", layers)


FAMILY = Family("qwen3", ("qwen3",), ("qwen3",), build, LLAMA_HF, LLAMA_GGUF)
