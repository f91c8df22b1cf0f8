"""A small llama on disk, written by numpy: skewed embeddings as trained ones have, and its veiled folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cryptography", reason="headrace[privacy] is not installed")
pytest.importorskip("pyrage", reason="headrace[privacy] is not installed")
pytest.importorskip("scipy.optimize", reason="needs the extra headrace[privacy]")

from safetensors.numpy import save_file

from headrace.privacy.attacks.artefact import Opened
from headrace.privacy.attacks.truth import Truth, truth_of
from headrace.privacy.veil.export import Export, export
from headrace.privacy.veil.keyfile import ClientKey
from headrace.privacy.veil.keys import Master
from headrace.privacy.veil.source import new_key, source_digest
from privacy.attacks.keyed import embedding

VOCAB, HIDDEN, LAYERS, HEADS, KEY_HEADS, WIDTH = 320, 32, 2, 4, 2, 48


def write_model(folder: Path, vocab: int = VOCAB, head: float = 0.3, blocks: float = 0.3, seed: int = 1) -> Path:
    """`head`, `blocks`: the spread of the head's and of the layers' weights; gains are none that is one."""
    rng, size = np.random.default_rng(seed), HIDDEN // HEADS
    shapes = {
        "self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (KEY_HEADS * size, HIDDEN),
        "self_attn.v_proj": (KEY_HEADS * size, HIDDEN), "self_attn.o_proj": (HIDDEN, HIDDEN),
        "mlp.gate_proj": (WIDTH, HIDDEN), "mlp.up_proj": (WIDTH, HIDDEN), "mlp.down_proj": (HIDDEN, WIDTH),
    }  # fmt: skip
    tensors = {"model.embed_tokens.weight": embedding(vocab, HIDDEN, seed), "model.norm.weight": _gains(rng)}
    tensors["lm_head.weight"] = rng.normal(0, head, (vocab, HIDDEN))
    for layer in range(LAYERS):
        start = f"model.layers.{layer}."
        tensors |= {f"{start}{name}.weight": rng.normal(0, blocks, shape) for name, shape in shapes.items()}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{start}{norm}.weight"] = _gains(rng)
    config = {
        "model_type": "llama", "vocab_size": vocab, "hidden_size": HIDDEN, "intermediate_size": WIDTH,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KEY_HEADS,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": False, "bos_token_id": 3, "eos_token_id": 4, "architectures": ["LlamaForCausalLM"],
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(
        {name: np.ascontiguousarray(table, np.float32) for name, table in tensors.items()}, folder / "model.safetensors"
    )
    return folder


def _gains(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0.5, 1.5, HIDDEN)


@dataclass(frozen=True)
class Deployment:
    """`other`: what is true of a key that was drawn apart from the one in use."""

    public: Opened
    deployed: Opened
    key: ClientKey
    truth: Truth
    other: Truth


def fixed_key(source: Path, secret: int) -> ClientKey:
    """The same in every run."""
    return replace(new_key(source), master=Master(bytes([secret] * 32), source_digest(source)))


def deploy(folder: Path, dtype: str = "f32", **model: float) -> Deployment:
    source = write_model(folder / "plain", **model)
    key, target = fixed_key(source, 7), folder / "veiled"
    export(source, key, target, Export(dtype))
    deployed = Opened(target)
    other = Truth.of(fixed_key(source, 10), deployed.spec)
    return Deployment(Opened(source), deployed, key, truth_of(target, key, deployed.spec), other)
