"""config.json of a veiled model: the source's settings, or ones written from its ModelSpec, read back to prove them.

Only settings that the family reads are kept, so that no list of special tokens and no name slips through.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from headrace.model.config import Config
from headrace.model.families import by_name
from headrace.model.folder import read_json
from headrace.privacy.veil.errors import SymmetryError
from headrace.spec.errors import HeadraceError
from headrace.spec.model import ModelSpec, Rope

_CLASSES = {
    "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "mixtral": "MixtralForCausalLM",
    "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "qwen3_moe": "Qwen3MoeForCausalLM",
    "gemma2": "Gemma2ForCausalLM", "gemma3": "Gemma3ForCausalLM", "phi3": "Phi3ForCausalLM",
    "olmo2": "Olmo2ForCausalLM", "gpt2": "GPT2LMHeadModel", "bert": "BertModel",
}  # fmt: skip
_ACTIVATION_KEYS = {"gemma2": "hidden_activation", "gemma3": "hidden_activation", "gpt2": "activation_function"}
_DTYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


def veiled_settings(spec: ModelSpec, source: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """config.json of `spec` with tensors of `kind`, from `source` under the usual names of settings.

    Raises SymmetryError where the family, reading it, would build another model.
    """
    family = by_name(spec.family)
    where = f"{spec.family}'s config.json"
    noting = NotingConfig(dict(source) | {"tie_word_embeddings": False}, where)
    try:
        family.build(noting)
        values = {key: value for key, value in noting.given.items() if key in noting.asked}
        built = family.build(Config(values, where))
    except HeadraceError as error:
        raise SymmetryError(f"{where} cannot say what this model is: {error}") from None
    if built != replace(spec, name="", bos=None, eos=()):
        raise SymmetryError(f"{where} cannot say what this model is; veil it from its published folder.")
    back = {usual: own for own, usual in family.renamed.items()}
    fixed = {"model_type": family.model_types[0], "architectures": [_CLASSES[spec.family]], "dtype": _DTYPES[kind]}
    return fixed | {back.get(key, key): value for key, value in values.items()}


class NotingConfig(Config):
    """Settings of which those are noted that a family asks for; none is refused for being there."""

    def __init__(self, given: dict[str, Any], where: str) -> None:
        super().__init__(given, where)
        self.given = given
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def finish(self) -> None:
        return None


def folder_settings(path: Path, spec: ModelSpec) -> dict[str, Any]:
    """A published folder's config.json, its text part where it has one, under the usual names."""
    found = read_json(path / "config.json")
    text = found.get("text_config")
    renamed = by_name(spec.family).renamed
    values = text if isinstance(text, dict) else found
    return {renamed.get(key, key): value for key, value in values.items() if not (renamed and key == "n_ctx")}


def written_settings(spec: ModelSpec) -> dict[str, Any]:
    """Settings that say what `spec` is, for a source without a config.json."""
    first = spec.layers[0]
    att, scalar = first.attention, first.attention.scale**-2
    values: dict[str, Any] = {
        "hidden_size": spec.hidden, "vocab_size": spec.vocab, "max_position_embeddings": spec.context,
        "num_hidden_layers": len(spec.layers), "num_attention_heads": att.heads,
        "num_key_value_heads": att.kv_heads, "head_dim": att.head_dim, "attention_bias": att.qkv_bias and att.out_bias,
        "rms_norm_eps": first.norm.eps, "layer_norm_eps": first.norm.eps, "type_vocab_size": spec.token_types,
        "query_pre_attn_scalar": round(scalar) if abs(scalar - round(scalar)) < 1e-6 else scalar,
        "attn_logit_softcapping": att.softcap, "final_logit_softcapping": spec.logit_softcap,
    }  # fmt: skip
    return values | _feed_forward(spec) | _windows(spec) | _positions(spec)


def _feed_forward(spec: ModelSpec) -> dict[str, Any]:
    first = spec.layers[0].mlp
    dense = [index for index, layer in enumerate(spec.layers) if not layer.mlp.experts]
    sparse = next((layer.mlp for layer in spec.layers if layer.mlp.experts), None)
    act = "gelu_pytorch_tanh" if first.activation == "gelu_tanh" else first.activation
    width = spec.layers[dense[0]].mlp.width if dense else first.width
    values: dict[str, Any] = {
        _ACTIVATION_KEYS.get(spec.family, "hidden_act"): act, "intermediate_size": width, "mlp_bias": first.bias
    }  # fmt: skip
    if sparse is None:
        return values
    count = "num_local_experts" if spec.family == "mixtral" else "num_experts"
    return values | {
        count: sparse.experts, "num_experts_per_tok": sparse.top_k, "moe_intermediate_size": sparse.width,
        "norm_topk_prob": sparse.renormalise, "mlp_only_layers": dense,
    }  # fmt: skip


def _windows(spec: ModelSpec) -> dict[str, Any]:
    widths = [layer.attention.window for layer in spec.layers]
    widest = max((width for width in widths if width is not None), default=None)
    if widest is None:
        return {"sliding_window": None}
    kinds = ["full_attention" if width is None else "sliding_attention" for width in widths]
    return {"sliding_window": widest, "layer_types": kinds, "use_sliding_window": True}


def _positions(spec: ModelSpec) -> dict[str, Any]:
    ropes = {layer.attention.window is None: layer.attention.rope for layer in spec.layers}
    rope = ropes.get(True, ropes.get(False))
    if rope is None:
        return {}
    width = spec.layers[0].attention.head_dim
    if spec.family != "gemma3":
        return {"rope_parameters": _rope(rope, width)}
    sliding = ropes.get(False) or rope
    return {"rope_parameters": {"full_attention": _rope(rope, width), "sliding_attention": _rope(sliding, width)}}


def _rope(rope: Rope, width: int) -> dict[str, Any]:
    """`rope_parameters` of one rotation; of two sets of divisors a Rope has the one that it was made for."""
    values: dict[str, Any] = {"rope_type": "default" if rope.scaling == "none" else rope.scaling}
    values["rope_theta"] = rope.theta
    if rope.dim != width:
        values["partial_rotary_factor"] = rope.dim / width
    if rope.scaling in ("linear", "dynamic", "yarn", "longrope") or (rope.scaling == "llama3" and not rope.factors):
        values["factor"] = rope.factor
    if rope.scaling in ("llama3", "yarn", "longrope"):
        values["original_max_position_embeddings"] = rope.original
    if rope.scaling == "llama3":
        frequencies = {"low_freq_factor": rope.low_freq_factor, "high_freq_factor": rope.high_freq_factor}
        values |= {"factors": list(rope.factors)} if rope.factors else frequencies
    if rope.scaling == "yarn":
        values |= {"beta_fast": rope.beta_fast, "beta_slow": rope.beta_slow, "truncate": rope.truncate}
        values |= {"mscale": rope.mscale, "mscale_all_dim": rope.mscale_all_dim}
    if rope.scaling == "longrope":
        values |= {"short_factor": list(rope.factors), "long_factor": list(rope.factors)}
    if rope.attention_factor is not None:
        values["attention_factor"] = rope.attention_factor
    return values
