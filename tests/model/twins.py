"""Tiny random models of every family, made by transformers and saved as published checkpoints are."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
import transformers

transformers.utils.logging.disable_progress_bar()

LENGTH = 48
"""Tokens of a parity run: longer than the twins' windows, and three pages."""
VOCAB, HIDDEN = 96, 64
_SHORT = [1.0 + 0.1 * i for i in range(8)]
_LONG = [1.5 + 0.7 * i for i in range(8)]


@dataclass(frozen=True)
class Twin:
    """One configuration: `config` class and settings on top of the common ones."""

    name: str
    config: str
    settings: dict[str, Any] = field(default_factory=dict)
    model: str = "AutoModelForCausalLM"
    context: int | None = None

    @property
    def family(self) -> str:
        return self.name.partition("-")[0]


def _rope(kind: str, **settings: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **settings}}


_MOE = {"num_local_experts": 4, "num_experts_per_tok": 2}
_QWEN_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": True}
_GPT2 = {"n_embd": HIDDEN, "n_layer": 3, "n_head": 4, "n_positions": 128, "vocab_size": VOCAB, "n_inner": 112}
_LAYERS3 = ["sliding_attention", "full_attention", "sliding_attention"]
_GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}
_LONGROPE = _rope("longrope", short_factor=_SHORT, long_factor=_LONG, partial_rotary_factor=1.0)

TWINS: tuple[Twin, ...] = (
    Twin("llama", "LlamaConfig"),
    Twin("llama-tied", "LlamaConfig", {"tie_word_embeddings": True, "head_dim": 24}),
    Twin("llama-biases", "LlamaConfig", {"attention_bias": True, "mlp_bias": True}),
    Twin("llama-linear", "LlamaConfig", _rope("linear", factor=4.0)),
    Twin("llama-dynamic", "LlamaConfig", _rope("dynamic", factor=4.0)),
    Twin(
        "llama-llama3",
        "LlamaConfig",
        _rope(
            "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32
        ),
    ),
    Twin("llama-yarn", "LlamaConfig", _rope("yarn", factor=4.0, original_max_position_embeddings=32)),
    Twin(
        "llama-yarn-mscale",
        "LlamaConfig",
        _rope(
            "yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=16.0, beta_slow=2.0, mscale=0.7,
            mscale_all_dim=1.1, truncate=False,
        ),
    ),
    Twin("mistral", "MistralConfig", {"sliding_window": 11}),
    Twin("mistral-full", "MistralConfig", {"sliding_window": None, "head_dim": 32}),
    Twin("mixtral", "MixtralConfig", {**_MOE, "sliding_window": None}),
    Twin("mixtral-window", "MixtralConfig", {**_MOE, "sliding_window": 13}),
    Twin("qwen2", "Qwen2Config"),
    Twin("qwen2-window", "Qwen2Config", {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}),
    Twin("qwen2-yarn", "Qwen2Config", _rope("yarn", factor=4.0, original_max_position_embeddings=24)),
    Twin("qwen3", "Qwen3Config", {"head_dim": 24}),
    Twin("qwen3-biases", "Qwen3Config", {"attention_bias": True, "tie_word_embeddings": True, "head_dim": 16}),
    Twin("qwen3_moe", "Qwen3MoeConfig", {**_QWEN_MOE, "head_dim": 16}),
    Twin(
        "qwen3_moe-mixed",
        "Qwen3MoeConfig",
        {**_QWEN_MOE, "head_dim": 16, "norm_topk_prob": False, "decoder_sparse_step": 2, "mlp_only_layers": [1]},
    ),
    Twin("gemma2", "Gemma2Config", {"head_dim": 24, "sliding_window": 10, "query_pre_attn_scalar": 24}),
    Twin(
        "gemma2-caps",
        "Gemma2Config",
        {
            "head_dim": 16, "sliding_window": 7, "query_pre_attn_scalar": 9,
            "attn_logit_softcapping": 0.5, "final_logit_softcapping": 0.8,
        },
    ),
    Twin(
        "gemma3",
        "Gemma3TextConfig",
        {"head_dim": 24, "sliding_window": 10, "query_pre_attn_scalar": 24, "layer_types": _LAYERS3},
    ),
    Twin(
        "gemma3-linear",
        "Gemma3TextConfig",
        {"head_dim": 16, "sliding_window": 7, "layer_types": _LAYERS3, "rope_parameters": _GEMMA3_ROPE},
    ),
    Twin("phi3", "Phi3Config", {"pad_token_id": 0, "sliding_window": 12}),
    Twin(
        "phi3-partial",
        "Phi3Config",
        {"pad_token_id": 0, **_rope("default", partial_rotary_factor=0.5)},
    ),
    Twin(
        "phi3-short", "Phi3Config", {"pad_token_id": 0, "original_max_position_embeddings": 64, **_LONGROPE}, context=64
    ),
    Twin("phi3-long", "Phi3Config", {"pad_token_id": 0, "original_max_position_embeddings": 32, **_LONGROPE}),
    Twin("olmo2", "Olmo2Config", {"pad_token_id": 0, "eos_token_id": 1}),
    Twin("gpt2", "GPT2Config", _GPT2),
    Twin("gpt2-scales", "GPT2Config", {**_GPT2, "scale_attn_by_inverse_layer_idx": True, "n_inner": None}),
    Twin("bert", "BertConfig", {"layer_norm_eps": 1e-6}, model="AutoModel"),
)  # fmt: skip


def make_config(twin: Twin) -> Any:
    common = {
        "hidden_size": HIDDEN, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": VOCAB, "max_position_embeddings": 128,
    }  # fmt: skip
    if twin.family == "bert":
        common.pop("num_key_value_heads")
    if twin.family == "gpt2":
        common = {}
    settings = copy.deepcopy(common | twin.settings)  # transformers writes into nested ones
    return getattr(transformers, twin.config)(**settings)


def make_twin(twin: Twin, folder: Path) -> Any:
    """The transformers model, in fp32 with large random weights, saved to `folder`."""
    torch.manual_seed(sum(map(ord, twin.name)))
    model = getattr(transformers, twin.model).from_config(make_config(twin), attn_implementation="eager")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.0, 0.15 if parameter.dim() > 1 else 0.3)
            is_gain = parameter.dim() == 1 and not name.endswith("bias")
            if is_gain and twin.family not in ("gemma2", "gemma3"):
                parameter.add_(0.5)
    model = model.eval().float()
    model.save_pretrained(folder)
    model.saved_to = str(folder)
    return model


def make_tokens(seed: int, length: int = LENGTH) -> torch.Tensor:
    return torch.randint(3, VOCAB, (1, length), generator=torch.Generator().manual_seed(seed))
