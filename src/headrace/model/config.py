"""Published model settings under one set of names, read strictly.

The names are those of Hugging Face config.json; a GGUF file's metadata is translated to them. A setting
that nobody has read when a family is done, and that is not known to leave the arithmetic alone, is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from headrace.model.gguf_file import GgufFile
from headrace.spec.errors import ModelFileError, UnsupportedModel

_NO_EFFECT = frozenset(
    """
    _attn_implementation _attn_implementation_autoset _name_or_path _sliding_window_pattern
    architectures attention_dropout attention_probs_dropout_prob attn_implementation attn_pdrop auto_map
    bad_words_ids begin_suppress_tokens bos_token_id cache_implementation chunk_size_feed_forward classifier_dropout
    cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample dtype early_stopping embd_pdrop
    encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty finetuning_task forced_bos_token_id
    forced_eos_token_id gradient_checkpointing hidden_dropout_prob id2label initializer_range
    keys_to_ignore_at_inference label2id length_penalty max_length max_window_layers min_length
    model_type no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_attentions
    output_hidden_states output_router_logits output_scores pad_token_id prefix problem_type pruned_heads
    remove_invalid_values reorder_and_upcast_attn repetition_penalty resid_pdrop return_dict return_dict_in_generate
    router_aux_loss_coef router_jitter_noise sep_token_id summary_activation summary_first_dropout
    summary_proj_to_labels summary_type summary_use_proj suppress_tokens task_specific_params temperature
    tf_legacy_loss tie_encoder_decoder tokenizer_class top_k top_p torch_dtype torchscript transformers_version
    transformers.js_config typical_p unsloth_fixed unsloth_version use_bfloat16 use_cache
    """.split()
)
"""Settings of training, of generation or of the Python class: they do not change a forward pass."""

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "attention_bias": (False,),
    "is_decoder": (False,),
    "is_encoder_decoder": (False,),
    "mlp_bias": (False,),
    "pretraining_tp": (0, 1),
    "is_causal": (True,),
    "use_bidirectional_attention": (False,),
    "use_mrope": (False,),
    "use_sliding_window": (False,),
}


class Config:
    """Settings by name; remembers which were read. `context` is the length the caller will run at, if known."""

    def __init__(self, values: Mapping[str, Any], source: str, gguf: bool = False, context: int | None = None) -> None:
        self.values, self.source, self.gguf, self.context = dict(values), source, gguf, context
        self._read: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        """The setting, or `default` where it is absent or null."""
        self._read.add(key)
        value = self.values.get(key)
        return default if value is None else value

    def need(self, key: str) -> Any:
        if (value := self.get(key)) is None:
            raise ModelFileError(f"{self.source} has no setting {key}; download or convert the model again.")
        return value

    def expect(self, key: str, *allowed: Any) -> None:
        """Raises UnsupportedModel unless the setting is absent or one of `allowed`."""
        if (value := self.get(key)) is not None and value not in allowed:
            raise self.refusal(key, value)

    def refusal(self, key: str, value: Any) -> UnsupportedModel:
        shown = repr(value)
        shown = shown if len(shown) < 80 else shown[:77] + "..."
        return UnsupportedModel(
            f"{self.source} sets {key} to {shown}, which is not supported; choose another model of this family."
        )

    def finish(self) -> None:
        """Refuses the first setting that was not read and could change the arithmetic."""
        for key, value in self.values.items():
            if key in self._read or key in _NO_EFFECT or value is None:
                continue
            if key in _NEUTRAL and value in _NEUTRAL[key]:
                continue
            raise self.refusal(key, value)


_GGUF_KEYS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "vocab_size": "vocab_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.layer_norm_epsilon": "layer_norm_eps",
    "attention.key_length": "head_dim",
    "attention.value_length": "value_dim",
    "attention.sliding_window": "sliding_window",
    "attention.sliding_window_pattern": "sliding_window_pattern",
    "attention.causal": "causal",
    "attention.scale": "attention_scale",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "expert_count": "num_local_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "rope.dimension_count": "rope_dim",
    "rope.freq_base": "rope_theta",
    "rope.freq_base_swa": "rope_local_base_freq",
}
_GGUF_ROPE = {
    "rope.scaling.type": "rope_type",
    "rope.scaling.factor": "factor",
    "rope.scale_linear": "factor",
    "rope.scaling.original_context_length": "original_max_position_embeddings",
    "rope.scaling.attn_factor": "attn_factor",
    "rope.scaling.yarn_attn_factor": "attn_factor",
    "rope.scaling.yarn_beta_fast": "beta_fast",
    "rope.scaling.yarn_beta_slow": "beta_slow",
}
_GGUF_NO_EFFECT = {"rope.scaling.finetuned", "pooling_type", "tensor_data_layout", "attention.layer_count"}


def gguf_config(file: GgufFile, context: int | None = None) -> Config:
    """The architecture's metadata under the names of config.json."""
    architecture = file.need("general.architecture")
    values: dict[str, Any] = {}
    rope: dict[str, Any] = {}
    for key, value in file.metadata.items():
        prefix, _, rest = key.partition(".")
        if prefix != architecture or rest in _GGUF_NO_EFFECT:
            continue
        if isinstance(value, list):
            value = _one(key, value, file)
        if rest in _GGUF_ROPE:
            rope[_GGUF_ROPE[rest]] = value
            if rest == "rope.scale_linear":
                rope.setdefault("rope_type", "linear")
        else:
            values[_GGUF_KEYS.get(rest, key)] = value
    rope |= _rope_tensors(file)
    if rope:
        values["rope_scaling"] = rope
    embed = file.tensors.get("token_embd.weight")
    if embed is not None:
        values["vocab_size"] = embed.shape[0]
    values["tie_word_embeddings"] = "output.weight" not in file.tensors
    if architecture == "llama":  # the only one whose biases are optional
        values["attention_bias"] = "blk.0.attn_output.bias" in file.tensors
        values["mlp_bias"] = "blk.0.ffn_down.bias" in file.tensors
    return Config(values, file.path.name, gguf=True, context=context)


def _one(key: str, values: list[Any], file: GgufFile) -> Any:
    """A per-layer list whose entries are equal is one value; the window pattern stays a list."""
    if key.endswith("sliding_window_pattern"):
        return values
    if len(set(values)) != 1:
        raise UnsupportedModel(
            f"{file.path.name} sets {key} to a different value in each layer, which is not supported;"
            " choose another model of this family."
        )
    return values[0]


def _rope_tensors(file: GgufFile) -> dict[str, Any]:
    """Per-frequency divisors that a GGUF file keeps as tensors."""
    names = {
        "rope_freqs.weight": "factors",
        "rope_factors_long.weight": "long_factor",
        "rope_factors_short.weight": "short_factor",
    }
    return {key: file.tensors[name].numpy().ravel().tolist() for name, key in names.items() if name in file.tensors}


def activation(config: Config, keys: Iterable[str], default: str) -> Any:
    """The feed-forward activation under Headrace's name. Raises UnsupportedModel for another one."""
    names = {
        "silu": "silu", "swish": "silu", "relu": "relu", "gelu": "gelu",
        "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh",
    }  # fmt: skip
    found = [(key, config.get(key)) for key in keys]
    for key, value in found:
        if value is not None:
            if value not in names:
                raise config.refusal(key, value)
            return names[value]
    return default
