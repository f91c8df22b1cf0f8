"""Mixtral of experts (arXiv 2401.04088). Its GGUF files say `llama` and have an expert count."""

from headrace.model.config import Config
from headrace.model.families.common import LLAMA_HF, Family, attention, decoder, depth, gated_mlp, rms, windows
from headrace.model.naming import experts
from headrace.spec.model import Layer, ModelSpec


def build(config: Config) -> ModelSpec:
    mlp = gated_mlp(
        config,
        experts=int(config.need("num_local_experts")),
        top_k=int(config.need("num_experts_per_tok")),
    )
    theta = 10000.0 if config.gguf else 1e6
    layers = [
        Layer(attention(config, theta, window=window), mlp, rms(config, 1e-5))
        for window in windows(config, lambda layer: True)
    ]
    return decoder(config, "mixtral", layers[: depth(config)])


_EXPERT = "layers.N.block_sparse_moe.experts.{E}."
FAMILY = Family(
    "mixtral",
    ("mixtral",),
    (),
    build,
    LLAMA_HF
    | {
        "layers.N.mlp.router": "layers.N.block_sparse_moe.gate",
        "layers.N.mlp.experts.gate": experts(_EXPERT + "w1.weight"),
        "layers.N.mlp.experts.down": experts(_EXPERT + "w2.weight"),
        "layers.N.mlp.experts.up": experts(_EXPERT + "w3.weight"),
    },
    {},
)
