"""Qwen 3 mixture of experts (arXiv 2505.09388)."""

from headrace.model.config import Config
from headrace.model.families.common import LLAMA_GGUF, LLAMA_HF, Family, decoder, depth, gated_mlp, rms
from headrace.model.families.qwen3 import qwen3_attention
from headrace.model.naming import experts
from headrace.spec.model import Layer, Mlp, ModelSpec


def build(config: Config) -> ModelSpec:
    width = config.get("sliding_window")
    window = int(width) if width and config.get("use_sliding_window", False) else None
    part, norm = qwen3_attention(config, window), rms(config)
    sparse = gated_mlp(
        config,
        width=int(config.need("moe_intermediate_size")),
        experts=int(config.get("num_local_experts") or config.need("num_experts")),
        top_k=int(config.need("num_experts_per_tok")),
        renormalise=bool(config.get("norm_topk_prob", config.gguf)),
    )
    config.get("num_experts")
    dense, step = set(config.get("mlp_only_layers", ())), int(config.get("decoder_sparse_step", 1))

    def mlp(layer: int) -> Mlp:
        return gated_mlp(config) if layer in dense or (layer + 1) % step else sparse

    config.get("intermediate_size")
    return decoder(config, "qwen3_moe", [Layer(part, mlp(layer), norm) for layer in range(depth(config))])


FAMILY = Family(
    "qwen3_moe",
    ("qwen3_moe",),
    ("qwen3moe",),
    build,
    LLAMA_HF
    | {"layers.N.mlp.router": "layers.N.mlp.gate"}
    | {
        f"layers.N.mlp.experts.{part}": experts("layers.N.mlp.experts.{E}." + part + "_proj.weight")
        for part in ("gate", "up", "down")
    },
    LLAMA_GGUF,
)
