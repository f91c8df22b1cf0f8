"""BERT, an encoder: attention both ways, norms on the residual sum (arXiv 1810.04805)."""

from headrace.model.config import Config, activation
from headrace.model.families.common import Family, attention, decoder, depth
from headrace.model.naming import Names
from headrace.spec.model import Layer, Mlp, ModelSpec, Norm


def build(config: Config) -> ModelSpec:
    config.expect("position_embedding_type", "absolute")
    config.expect("causal", False)
    config.values.pop("causal", None)
    norm = Norm("layer", float(config.get("layer_norm_eps", 1e-12)), bias=True)
    mlp = Mlp(
        int(config.need("intermediate_size")), activation(config, ("hidden_act",), "gelu"), gated=False, bias=True
    )
    part = attention(config, rope=None, qkv_bias=True, out_bias=True, causal=False)
    return decoder(
        config, "bert", [Layer(part, mlp, norm, "on_residual")] * depth(config), causal=False, tied=True,
        learned_positions=int(config.need("max_position_embeddings")),
        token_types=int(config.get("type_vocab_size", config.get("tokenizer_types", 2))),
        embed_norm=norm, final_norm=None,
    )  # fmt: skip


_HF: Names = {
    "embed": "embeddings.word_embeddings",
    "embed.positions": "embeddings.position_embeddings.weight",
    "embed.types": "embeddings.token_type_embeddings.weight",
    "embed.norm": "embeddings.LayerNorm",
    "layers.N.attn.q": "encoder.layer.N.attention.self.query",
    "layers.N.attn.k": "encoder.layer.N.attention.self.key",
    "layers.N.attn.v": "encoder.layer.N.attention.self.value",
    "layers.N.attn.o": "encoder.layer.N.attention.output.dense",
    "layers.N.attn_post_norm": "encoder.layer.N.attention.output.LayerNorm",
    "layers.N.mlp.up": "encoder.layer.N.intermediate.dense",
    "layers.N.mlp.down": "encoder.layer.N.output.dense",
    "layers.N.mlp_post_norm": "encoder.layer.N.output.LayerNorm",
}
_GGUF: Names = {
    "embed": "token_embd",
    "embed.positions": "position_embd.weight",
    "embed.types": "token_types.weight",
    "embed.norm": "token_embd_norm",
    "layers.N.attn.q": "blk.N.attn_q",
    "layers.N.attn.k": "blk.N.attn_k",
    "layers.N.attn.v": "blk.N.attn_v",
    "layers.N.attn.o": "blk.N.attn_output",
    "layers.N.attn_post_norm": "blk.N.attn_output_norm",
    "layers.N.mlp.up": "blk.N.ffn_up",
    "layers.N.mlp.down": "blk.N.ffn_down",
    "layers.N.mlp_post_norm": "blk.N.layer_output_norm",
}
FAMILY = Family("bert", ("bert",), ("bert",), build, _HF, _GGUF)
