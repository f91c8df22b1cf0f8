"""Mistral 7B: Llama with a sliding window on every layer (arXiv 2310.06825). Its GGUF files say `llama`."""

from headrace.model.config import Config
from headrace.model.families.common import LLAMA_HF, Family, attention, decoder, gated_mlp, rms, windows
from headrace.spec.model import Layer, ModelSpec


def build(config: Config) -> ModelSpec:
    mlp, norm = gated_mlp(config), rms(config)
    layers = [Layer(attention(config, window=window), mlp, norm) for window in windows(config, lambda layer: True)]
    return decoder(config, "mistral", layers)


FAMILY = Family("mistral", ("mistral",), (), build, LLAMA_HF, {})
