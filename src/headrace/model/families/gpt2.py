"""GPT-2: layer norms, learned positions, biases everywhere, tied head."""

from headrace.model.config import Config, activation
from headrace.model.families.common import Family, attention, decoder, depth
from headrace.model.naming import Names, conv1d, qkv
from headrace.spec.model import Layer, Mlp, ModelSpec, Norm


def build(config: Config) -> ModelSpec:
    hidden, positions = int(config.need("hidden_size")), int(config.need("max_position_embeddings"))
    act = activation(config, ("activation_function",), "gelu_tanh")
    mlp = Mlp(int(config.get("intermediate_size", 4 * hidden)), act, gated=False, bias=True)
    norm = Norm("layer", float(config.get("layer_norm_eps", 1e-5)), bias=True)
    plain = attention(config, rope=None, qkv_bias=True, out_bias=True)
    scale = plain.scale if config.get("scale_attn_weights", True) else 1.0
    deeper = bool(config.get("scale_attn_by_inverse_layer_idx", False))
    layers = [
        Layer(
            attention(config, rope=None, qkv_bias=True, out_bias=True, scale=scale / (index + 1 if deeper else 1)),
            mlp,
            norm,
        )
        for index in range(depth(config))
    ]
    tied = bool(config.get("tie_word_embeddings", True))
    return decoder(config, "gpt2", layers, tied=tied, learned_positions=positions)


_HF: Names = {
    "embed": "wte",
    "embed.positions": "wpe.weight",
    "layers.N.attn_norm": "h.N.ln_1",
    "layers.N.attn.q": ("h.N.attn.c_attn", conv1d, qkv("q")),
    "layers.N.attn.k": ("h.N.attn.c_attn", conv1d, qkv("k")),
    "layers.N.attn.v": ("h.N.attn.c_attn", conv1d, qkv("v")),
    "layers.N.attn.o": ("h.N.attn.c_proj", conv1d),
    "layers.N.mlp_norm": "h.N.ln_2",
    "layers.N.mlp.up": ("h.N.mlp.c_fc", conv1d),
    "layers.N.mlp.down": ("h.N.mlp.c_proj", conv1d),
    "norm": "ln_f",
    "head": "lm_head",
}
_GGUF: Names = {
    "embed": "token_embd",
    "embed.positions": "position_embd.weight",
    "layers.N.attn_norm": "blk.N.attn_norm",
    "layers.N.attn.q": ("blk.N.attn_qkv", qkv("q")),
    "layers.N.attn.k": ("blk.N.attn_qkv", qkv("k")),
    "layers.N.attn.v": ("blk.N.attn_qkv", qkv("v")),
    "layers.N.attn.o": "blk.N.attn_output",
    "layers.N.mlp_norm": "blk.N.ffn_norm",
    "layers.N.mlp.up": "blk.N.ffn_up",
    "layers.N.mlp.down": "blk.N.ffn_down",
    "norm": "output_norm",
    "head": "output",
}
_RENAMED = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_positions": "max_position_embeddings",
    "n_inner": "intermediate_size",
    "layer_norm_epsilon": "layer_norm_eps",
}
FAMILY = Family("gpt2", ("gpt2",), ("gpt2",), build, _HF, _GGUF, _RENAMED)
