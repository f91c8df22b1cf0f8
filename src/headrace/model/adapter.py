"""Reading a LoRA adapter as PEFT saves it: adapter_config.json and adapter_model.safetensors.

Its modules have the names of the published model, whatever file the weights themselves came from: the rows of
`b` are that model's outputs, which the family's naming cuts and orders like those of the weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headrace.model.families import by_name
from headrace.model.folder import read_json, read_safetensors
from headrace.model.loading import unwrapped
from headrace.model.naming import module_of, weight_shapes
from headrace.model.tensor import Tensor
from headrace.spec.adapter import Adapter, LowRank
from headrace.spec.errors import ModelFileError, UnsupportedModel
from headrace.spec.model import ModelSpec
from headrace.spec.program import Matmul, compile_program

_PART = re.compile(r"^base_model\.model\.(.+)\.lora_(A|B)\.weight$")
_CHANGES = {
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "modules_to_save": "modules_to_save",
    "trainable_token_indices": "trained token embeddings",
    "layer_replication": "layer_replication",
    "target_parameters": "target_parameters",
    "lora_bias": "lora_bias",
    "alora_invocation_tokens": "activation by a token",
    "use_bdlora": "BD-LoRA",
    "kasa_config": "KaSA",
    "arrow_config": "Arrow",
    "monteclora_config": "MonteCLoRA",
}
"""Settings under which an adapter is more than a product of two matrices -> what the refusal calls them."""
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Ways to start training that leave the model's own weights as they are."""


def read_adapter(path: str | Path, name: str, spec: ModelSpec) -> Adapter:
    """Raises ModelFileError, or UnsupportedModel for what is not a plain adapter of this model's products."""
    path = Path(path).expanduser()
    if not path.is_dir():
        raise ModelFileError(f"{path} is no adapter's folder; give one with adapter_config.json in it.")
    config = read_json(path / "adapter_config.json")
    _check_kind(config, path.name)
    try:
        modules = _modules(path)
        targets = _targets(config, modules, spec, path.name)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, re.error) as error:
        raise ModelFileError(
            f"{path.name} has settings that make no sense ({type(error).__name__}: {error}); save it again."
        ) from None
    adapter = Adapter(name, targets)
    check_adapter(adapter, spec)
    return adapter


def check_adapter(adapter: Adapter, spec: ModelSpec) -> None:
    """Raises ModelFileError naming the first weight that the model's products do not have, or not in this shape."""
    shapes = product_shapes(spec)
    for weight, target in adapter.targets.items():
        if weight not in shapes:
            raise ModelFileError(
                f"Adapter {adapter.name} changes {weight}, which is no product of this model; use its own model."
            )
        if (target.b.shape[0], target.a.shape[1]) != shapes[weight] or target.a.shape[0] != target.b.shape[1]:
            raise ModelFileError(
                f"Adapter {adapter.name} has {list(target.b.shape)} x {list(target.a.shape)} for {weight}, "
                f"which is {list(shapes[weight])}; use the model that it was trained for."
            )
    if not adapter.targets:
        raise ModelFileError(f"Adapter {adapter.name} changes nothing; train or save it again.")


def product_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Weight [outputs, inputs] of every product that an adapter can change."""
    shapes = weight_shapes(spec)
    return {op.weight: shapes[op.weight] for op in compile_program(spec).operations if isinstance(op, Matmul)}


def _check_kind(config: Mapping[str, Any], where: str) -> None:
    kind = str(config.get("peft_type", "LORA")).upper()
    found = [what for key, what in _CHANGES.items() if config.get(key)]
    if kind != "LORA":
        found.insert(0, kind)
    if config.get("bias", "none") != "none":
        found.append("trained biases")
    if (start := config.get("init_lora_weights", True)) not in _PLAIN_STARTS:
        found.append(f"base weights changed by {start}")
    if found:
        raise UnsupportedModel(
            f"{where} is not a plain LoRA adapter ({', '.join(found)}); merge it into its model and serve that."
        )


def _modules(path: Path) -> dict[str, dict[str, Tensor]]:
    """Module -> its matrices A and B."""
    file = path / "adapter_model.safetensors"
    if not file.is_file():
        raise ModelFileError(f"{path.name} has no {file.name}; save the adapter with safe_serialization=True.")
    modules: dict[str, dict[str, Tensor]] = {}
    for name, tensor in read_safetensors(file)[0].items():
        found = _PART.match(name)
        if found is None or len(tensor.shape) != 2:
            raise UnsupportedModel(f"{path.name} has {name}, which is no part of a LoRA adapter; train it without.")
        modules.setdefault(unwrapped(found[1]), {})[found[2]] = tensor
    if half := next((module for module, parts in modules.items() if len(parts) != 2), None):
        raise ModelFileError(f"{path.name} has only one of the two matrices of {half}; save it again.")
    return modules


def _targets(
    config: Mapping[str, Any], modules: dict[str, dict[str, Tensor]], spec: ModelSpec, where: str
) -> dict[str, LowRank]:
    shapes, names = product_shapes(spec), by_name(spec.family).hf
    parts: dict[str, list[tuple[str, Callable[[Tensor], Tensor]]]] = {}
    for weight in shapes:
        module, outputs = module_of(spec, names, weight)
        parts.setdefault(module, []).append((weight, outputs))
    unknown = [module for module in modules if module not in parts]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise UnsupportedModel(
            f"{where} changes {unknown[0]}{more}, which adapters cannot change in a {spec.family}; "
            "train it on the attention and mlp projections alone."
        )
    targets: dict[str, LowRank] = {}
    for module, matrices in modules.items():
        a, b = matrices["A"], matrices["B"]
        wanted = sum(shapes[weight][0] for weight, _ in parts[module])
        if b.shape[0] != wanted:
            raise ModelFileError(
                f"{where} has {b.shape[0]} outputs for {module}, which has {wanted}; "
                "use the model that it was trained for."
            )
        for weight, outputs in parts[module]:
            targets[weight] = LowRank(a.numpy(), outputs(b).numpy(), _scale(config, a))
    return targets


def _scale(config: Mapping[str, Any], a: Tensor) -> float:
    """alpha / rank; alpha may differ by module, whose full name PEFT matches with its patterns."""
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    found, rank = _PART.match(a.name), a.shape[0]
    assert found is not None
    matching = (value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", found[1]))
    alpha = float(next(matching, config["lora_alpha"]))
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    if not math.isfinite(scale):
        raise ValueError(f"the scale is {scale}")
    return scale
