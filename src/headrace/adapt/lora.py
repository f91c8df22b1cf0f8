"""Low-rank adapters (LoRA, arXiv 2106.09685) on any loaded decoder, written as PEFT does."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor

from headrace.adapt.batches import Batch, Batches, Epochs
from headrace.adapt.folder import published_name
from headrace.adapt.lesson import Draw, Lesson
from headrace.adapt.noisy import NoisyRun
from headrace.adapt.recipe import Lora, Recipe
from headrace.adapt.train import Report, Run, lesson_loss, work_folder
from headrace.backends.reference.dense import DenseModel
from headrace.model.catalogue import resolve
from headrace.model.loading import LoadedModel, load_model
from headrace.spec.adapter import Adapter
from headrace.spec.errors import InvalidRequest, UnsupportedModel
from headrace.spec.ledger import Ledger
from headrace.spec.model import ModelSpec

PARTS = {part: f"attn.{part}" for part in "qkvo"} | {part: f"mlp.{part}" for part in ("gate", "up", "down")}
ADAPTER_CONTEXT = 1024
"""Tokens of the longest lesson: attention over more would take gigabytes to train."""


class LowRank:
    """A frozen matrix `weight` [out, in] and its addition scale * b @ a, with a [rank, in] and b [out, rank]."""

    def __init__(self, weight: Tensor, a: Tensor, b: Tensor, scale: float) -> None:
        self.a, self.b = torch.nn.Parameter(a), torch.nn.Parameter(b)
        self._weight, self._scale = weight, scale

    @classmethod
    def fresh(cls, weight: Tensor, rank: int, scale: float, generator: torch.Generator) -> LowRank:
        """One that adds nothing yet."""
        out, inputs = weight.shape
        bound = inputs**-0.5
        a = torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator)
        return cls(weight, a, torch.zeros(out, rank), scale)

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self._weight.t() + self._scale * (x @ self.a.t()) @ self.b.t()


class LoraModel:
    """A base model, frozen, with trainable additions to some of its matrices, by their canonical names."""

    def __init__(self, dense: DenseModel, additions: Mapping[str, LowRank]) -> None:
        for parameter in dense.parameters().values():
            parameter.requires_grad_(False)
        self.forward, self.additions = dense.forward, dict(additions)
        for name, addition in additions.items():
            dense.replace(name, addition)

    @classmethod
    def fresh(cls, dense: DenseModel, options: Lora, seed: int) -> LoraModel:
        """With additions to the targets of every layer; it starts as the base itself."""
        generator, scale = torch.Generator().manual_seed(seed), options.alpha / options.rank
        weights, names = dense.parameters(), target_names(dense.spec, options.targets)
        return cls(dense, {name: LowRank.fresh(weights[name], options.rank, scale, generator) for name in names})

    @classmethod
    def of(cls, dense: DenseModel, adapter: Adapter) -> LoraModel:
        """With the additions of an adapter that was read for this model."""
        weights, targets = dense.parameters(), adapter.targets.items()
        parts = {name: (torch.tensor(one.a), torch.tensor(one.b), one.scale) for name, one in targets}
        return cls(dense, {name: LowRank(weights[name], *part) for name, part in parts.items()})

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """By the canonical name of the matrix, with .a and .b in place of .weight."""
        found: dict[str, torch.nn.Parameter] = {}
        for name, addition in self.additions.items():
            stem = name.removesuffix(".weight")
            found |= {f"{stem}.a": addition.a, f"{stem}.b": addition.b}
        return found


def target_names(spec: ModelSpec, targets: tuple[str, ...]) -> list[str]:
    """Canonical names of the matrices. Raises InvalidRequest for an unknown part, UnsupportedModel for experts."""
    if not targets or (unknown := set(targets) - PARTS.keys()):
        named = f"{', '.join(sorted(unknown))} is no target" if targets else "There is no target"
        raise InvalidRequest(f"{named}; give some of {', '.join(PARTS)}.", "targets")
    if any(layer.mlp.experts for layer in spec.layers) and {"gate", "up", "down"} & set(targets):
        raise UnsupportedModel("Adapters for experts are not trained here; leave gate, up and down out of the targets.")
    return [f"layers.{layer}.{PARTS[part]}.weight" for layer in range(len(spec.layers)) for part in targets]


def train_lora(recipe: Recipe, lessons: Draw | Sequence[Lesson], folder: Path, report: Report | None = None) -> Path:
    """Trains the recipe's adapter and writes it to `folder`, which appears whole or not at all.

    `lessons`: what draws them, or all there are, each of which is then learned once an epoch. Files are those of
    PEFT: adapter_config.json and adapter_model.safetensors (float32). A stopped run goes on when this is called
    again. Raises InvalidRequest, UnsupportedModel, ModelFileError, ContextExceeded.
    """
    if not isinstance(recipe.train, Lora):
        raise InvalidRequest(f"Recipe {recipe.name!r} does not train an adapter; give one of kind lora.", "train")
    options = recipe.train
    loaded = load_model(resolve(options.base), Ledger())
    named = {name: peft_name(loaded.spec, name) for name in target_names(loaded.spec, options.targets)}
    batches = _batches(recipe, lessons, loaded)
    model = LoraModel.fresh(DenseModel(loaded.spec, loaded.weights), options, recipe.seed)
    run = _run(recipe, options, model, batches.__getitem__, work_folder(folder))
    run.finish(report)
    return run.publish(folder, lambda ready: write_adapter(ready, options, named, run.weights()))


def _batches(recipe: Recipe, lessons: Draw | Sequence[Lesson], loaded: LoadedModel) -> Batches | Epochs:
    if not loaded.spec.causal or loaded.tokenizer is None:
        raise UnsupportedModel(f"{loaded.name} does not generate text; train an adapter of a model that does.")
    how = (loaded.tokenizer, recipe.batch, min(loaded.spec.context, ADAPTER_CONTEXT), recipe.seed)
    return Batches(lessons, *how) if callable(lessons) else Epochs(lessons, *how)


def _run(recipe: Recipe, options: Lora, model: LoraModel, batch: Callable[[int], Batch], work: Path) -> Run:
    if options.noise is None:
        return Run(recipe, model.parameters(), lambda step: lesson_loss(model.forward, batch(step)), work)

    def losses(step: int) -> list[Callable[[], Tensor]]:
        return [partial(lesson_loss, model.forward, lesson) for lesson in batch(step).each()]

    return NoisyRun(recipe, model.parameters(), losses, work, options.noise)


def peft_name(spec: ModelSpec, canonical: str) -> str:
    """The stem of a matrix's pair in a PEFT file."""
    return "base_model.model." + published_name(spec.family, canonical).removesuffix(".weight")


def write_adapter(folder: Path, options: Lora, named: Mapping[str, str], weights: Mapping[str, np.ndarray]) -> None:
    """`named`: canonical matrix -> stem in the file."""
    held = {}
    for canonical, stem in named.items():
        for part in "ab":
            value = weights[f"{canonical.removesuffix('.weight')}.{part}"]
            held[f"{stem}.lora_{part.upper()}.weight"] = np.ascontiguousarray(value)
    save_file(held, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": options.base,
        "r": options.rank,
        "lora_alpha": options.alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted({stem.rpartition(".")[2] for stem in named.values()}),
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
