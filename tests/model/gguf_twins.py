"""Writes a twin as llama.cpp's converter would: its names, its layouts, its metadata keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

Quantise = Callable[[str, np.ndarray], gguf.GGMLQuantizationType | None]

ARCHITECTURES = {
    "llama": "llama", "mistral": "llama", "mixtral": "llama", "qwen2": "qwen2", "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe", "gemma2": "gemma2", "gemma3": "gemma3", "phi3": "phi3", "olmo2": "olmo2",
    "gpt2": "gpt2", "bert": "bert",
}  # fmt: skip
_SKIPPED = re.compile(r"pooler")


def write_gguf(path: Path, family: str, model: Any, quantise: Quantise | None = None) -> Path:
    """`quantise(name, values)` picks the stored type of a matrix; None keeps it in f32."""
    config, name = model.config, ARCHITECTURES[family]
    writer = gguf.GGUFWriter(path, name)
    _settings(writer, name, family, config)
    arch = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == name)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for hf_name, values in _layouts(family, config, _state(model)).items():
        target = names.get_name(hf_name, try_suffixes=(".weight", ".bias"))
        assert target is not None, hf_name
        kind = quantise(target, values) if quantise and values.ndim > 1 else None
        if kind is None:
            writer.add_tensor(target, np.ascontiguousarray(values))
        else:
            writer.add_tensor(target, gguf.quants.quantize(values, kind), raw_dtype=kind)
    for extra, values in _rope_tensors(config).items():
        writer.add_tensor(extra, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _state(model: Any) -> dict[str, np.ndarray]:
    """The published names: experts one by one, as `save_pretrained` writes them."""
    from safetensors.numpy import load_file

    state = load_file(Path(model.saved_to) / "model.safetensors")
    return {name: values for name, values in state.items() if not _SKIPPED.search(name)}


def _settings(writer: gguf.GGUFWriter, name: str, family: str, config: Any) -> None:
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    width = getattr(config, "n_inner", None) or getattr(config, "intermediate_size", None)
    writer.add_feed_forward_length(width or 4 * config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    if name in ("gpt2", "bert"):
        writer.add_layer_norm_eps(config.layer_norm_epsilon if name == "gpt2" else config.layer_norm_eps)
        if name == "bert":
            writer.add_causal_attention(False)
        return
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    _rope(writer, name, config, head_dim)
    if name.startswith("gemma") or name == "phi3":
        if config.sliding_window:
            writer.add_sliding_window(config.sliding_window)
        if name == "gemma2":
            writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
            writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if name == "gemma3":
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config.layer_types])
    if getattr(config, "num_experts_per_tok", None):
        writer.add_expert_count(config.num_local_experts if family == "mixtral" else config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
    if family == "qwen3_moe":
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)


def _rope(writer: gguf.GGUFWriter, name: str, config: Any, head_dim: int) -> None:
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1.0)))
    kind = rope["rope_type"]
    if kind in ("linear", "yarn", "longrope"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_factor(rope["factor"])
    if kind in ("yarn", "longrope"):
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if kind == "longrope":
        stretch = config.max_position_embeddings / rope["original_max_position_embeddings"]
        writer.add_rope_scaling_attn_factors(
            float(np.sqrt(1 + np.log(stretch) / np.log(rope["original_max_position_embeddings"])))
        )


def _rope_tensors(config: Any) -> dict[str, np.ndarray]:
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":
        return {f"rope_factors_{w}.weight": np.array(rope[f"{w}_factor"], np.float32) for w in ("long", "short")}
    if rope.get("rope_type") == "llama3":
        return {"rope_freqs.weight": _llama3_divisors(rope, config.head_dim)}
    return {}


def _llama3_divisors(rope: Mapping[str, Any], dim: int) -> np.ndarray:
    """What each frequency is divided by, the way the format stores Llama 3.1's scaling."""
    frequency = rope["rope_theta"] ** (-np.arange(0, dim, 2) / dim)
    length = 2 * np.pi / frequency
    original, low, high = rope["original_max_position_embeddings"], rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = (original / length - low) / (high - low)
    blended = 1 / ((1 - smooth) / rope["factor"] + smooth)
    return np.where(length < original / high, 1.0, np.where(length > original / low, rope["factor"], blended)).astype(
        np.float32
    )


def _layouts(family: str, config: Any, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    changed: dict[str, np.ndarray] = {}
    for name, values in state.items():
        if ARCHITECTURES[family] == "llama" and re.search(r"\.[qk]_proj\.", name):
            heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
            values = _neighbour_pairs(values, heads)
        if family in ("gemma2", "gemma3") and name.endswith("norm.weight"):
            values = values + np.float32(1)
        if family == "gpt2" and re.search(r"(c_attn|c_proj|c_fc)\.weight$", name):
            values = values.T
        changed[name] = values
    return _stacked(changed)


def _neighbour_pairs(values: np.ndarray, heads: int) -> np.ndarray:
    """Halves of a head's rows -> pairs of neighbours."""
    return values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def _stacked(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    groups: dict[str, dict[int, np.ndarray]] = {}
    rest: dict[str, np.ndarray] = {}
    for name, values in state.items():
        found = re.match(r"(.*\.experts)\.(\d+)\.(.*)", name)
        if found:
            groups.setdefault(f"{found[1]}.{found[3]}", {})[int(found[2])] = values
        else:
            rest[name] = values
    return rest | {name: np.stack([parts[i] for i in sorted(parts)]) for name, parts in groups.items()}
