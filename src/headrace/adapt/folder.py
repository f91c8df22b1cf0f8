"""A model from scratch: its settings and first weights, and the Hugging Face folder it is written to."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from headrace.adapt.recipe import MOST_PARAMETERS, Full
from headrace.adapt.vocabulary import END_ID, END_OF_TEXT, UNKNOWN, Vocabulary
from headrace.model.config import Config
from headrace.model.families import by_model_type
from headrace.model.loading import ResidentStore
from headrace.model.naming import weight_shapes
from headrace.model.tensor import Tensor
from headrace.spec.errors import InvalidRequest
from headrace.spec.model import ModelSpec

CHAT_TEMPLATE = "{% for message in messages %}{{ message.content | trim }}\n{% endfor %}"
"""A conversation is its messages, a line each."""


def settings(shape: Full, vocabulary: Vocabulary) -> dict[str, Any]:
    """config.json of a model of that shape."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(vocabulary),
        "hidden_size": shape.hidden,
        "intermediate_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim or shape.hidden // shape.heads,
        "max_position_embeddings": shape.context,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": END_ID,
        "torch_dtype": "float32",
    }


def spec_of(config: Mapping[str, Any]) -> ModelSpec:
    """Raises InvalidRequest for a model too large to be trained whole."""
    spec = by_model_type("llama").build(Config(config, "the recipe"))
    count = sum(map(math.prod, weight_shapes(spec).values()))
    if count > MOST_PARAMETERS:
        raise InvalidRequest(
            f"The model has {count:,} parameters and whole training is for at most {MOST_PARAMETERS:,}; "
            "make it smaller, or train an adapter.",
            "train",
        )
    return spec


def first_weights(spec: ModelSpec, seed: int) -> ResidentStore:
    """Normal of variance 1 / inputs; those that write to the residual smaller by the root of their number."""
    rng = np.random.default_rng(seed)
    held = {}
    for name, shape in weight_shapes(spec).items():
        if len(shape) == 1:
            held[name] = Tensor.of(name, np.ones(shape))
            continue
        into_residual = name.endswith(("attn.o.weight", "mlp.down.weight"))
        scale = shape[1] ** -0.5 / (2 * len(spec.layers)) ** (0.5 if into_residual else 0.0)
        held[name] = Tensor.of(name, rng.standard_normal(shape) * scale)
    return ResidentStore(held)


def published_name(family: str, canonical: str) -> str:
    """The name that Hugging Face files give a weight. Raises InvalidRequest for one they store fused or turned."""
    stem, _, ending = canonical.rpartition(".")
    parts = stem.split(".")
    layer = parts[1] if parts[0] == "layers" else ""
    rule = by_model_type(family).hf.get(".".join([parts[0], "N", *parts[2:]]) if layer else stem)
    if not isinstance(rule, str):
        raise InvalidRequest(
            f"{canonical} of a {family} model is not stored by itself; train another part of it.", "targets"
        )
    return "model." + rule.replace(".N.", f".{layer}.") + f".{ending}"


def write_folder(
    folder: Path, config: Mapping[str, Any], vocabulary: Vocabulary, weights: Mapping[str, np.ndarray]
) -> None:
    """config.json, model.safetensors (float32), tokenizer.json and tokenizer_config.json."""
    named = {published_name("llama", name): np.ascontiguousarray(value) for name, value in weights.items()}
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    vocabulary.core().save(str(folder / "tokenizer.json"))
    side = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TEXT,
        "unk_token": UNKNOWN,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(side, indent=2) + "\n", encoding="utf-8")
