"""Random adapters in PEFT's files, and the same change merged into a transformers model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

PROJECTIONS = {
    "q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "gate_proj", "up_proj", "down_proj", "gate_up_proj",
    "c_attn", "c_proj", "c_fc", "query", "key", "value", "dense",
}  # fmt: skip
RANK, ALPHA = 5, 8.0


def projections(model: Any) -> dict[str, Any]:
    """Name -> module of every linear projection outside of experts, poolers and heads."""
    return {
        name: module
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in PROJECTIONS and "expert" not in name and "pooler" not in name
    }


def weight_of(module: Any) -> torch.Tensor:
    """[outputs, inputs]; GPT-2's Conv1D stores the transpose."""
    weight: torch.Tensor = module.weight.data
    return weight if isinstance(module, torch.nn.Linear) else weight.T


def random_matrices(
    model: Any, seed: int, only: tuple[str, ...] = ("",), rank: int = RANK
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Module -> A [rank, inputs], B [outputs, rank]; their product is about as large as the weight."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, module in projections(model).items():
        if not name.endswith(only):
            continue
        outputs, inputs = weight_of(module).shape
        a = rng.standard_normal((rank, inputs)).astype(np.float32)
        b = (0.05 * rng.standard_normal((outputs, rank))).astype(np.float32)
        found[name] = (a, b)
    return found


def write_adapter(
    folder: Path, matrices: dict[str, tuple[np.ndarray, np.ndarray]], bf16: bool = False, **settings: Any
) -> Path:
    """`settings` stand in adapter_config.json, beside or instead of the usual ones."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none", "use_rslora": False, "use_dora": False,
        "modules_to_save": None, "fan_in_fan_out": False, "init_lora_weights": True, "task_type": "CAUSAL_LM",
    } | settings  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors = {}
    for module, (a, b) in matrices.items():
        stem = f"base_model.model.{module}"
        tensors |= {f"{stem}.lora_A.weight": a, f"{stem}.lora_B.weight": b}
    if bf16:
        from safetensors.torch import save_file as save_torch

        save_torch(
            {name: torch.from_numpy(value).bfloat16() for name, value in tensors.items()},
            folder / "adapter_model.safetensors",
        )
    else:
        save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def merge(model: Any, matrices: dict[str, tuple[np.ndarray, np.ndarray]], scale: float = ALPHA / RANK) -> None:
    """Adds scale * B @ A to every module's weight."""
    modules = projections(model)
    for name, (a, b) in matrices.items():
        weight_of(modules[name]).add_(torch.from_numpy(scale * (b.astype(np.float64) @ a)).float())
