"""Adapters: only A and B move, the loss falls, and the file says what the trained forward pass does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

import torch
from safetensors.numpy import load_file

from adapt.small import VOCABULARY, echo, laugh, recipe
from headrace.adapt import train
from headrace.adapt.full import train_full
from headrace.adapt.lora import LoraModel, target_names, train_lora
from headrace.adapt.recipe import Lora
from headrace.adapt.train import Progress
from headrace.backends.reference.dense import DenseModel
from headrace.model.loading import load_model
from headrace.spec.errors import InvalidRequest, UnsupportedModel
from headrace.spec.ledger import Ledger

EVERY = ("q", "k", "v", "o", "gate", "up", "down")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_full(recipe(steps=60), echo, VOCABULARY, tmp_path_factory.mktemp("base") / "model")


def dense(base: Path) -> DenseModel:
    loaded = load_model(base, Ledger())
    return DenseModel(loaded.spec, loaded.weights)


def lora(base: Path, **changes: object) -> Lora:
    return Lora(**({"base": str(base), "rank": 4, "alpha": 8.0, "targets": EVERY} | changes))


def test_the_loss_falls_and_the_base_stays(base: Path, tmp_path: Path) -> None:
    before, losses = (base / "model.safetensors").read_bytes(), list[float]()
    made = recipe(lora(base), steps=60)
    folder = train_lora(made, laugh, tmp_path / "adapter", lambda progress: losses.append(progress.loss))
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert (base / "model.safetensors").read_bytes() == before
    held = load_file(folder / "adapter_model.safetensors")
    assert held["base_model.model.model.layers.1.mlp.down_proj.lora_A.weight"].shape == (4, 96)
    assert held["base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight"].shape == (32, 4)
    assert len(held) == 2 * 2 * len(EVERY)
    assert all(value.any() and value.dtype == np.float32 for value in held.values())
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 4, 8.0)
    assert config["target_modules"] == sorted(f"{part}_proj" for part in EVERY)


def test_only_the_additions_have_gradients(base: Path) -> None:
    below = dense(base)
    frozen = {name: parameter.detach().clone() for name, parameter in below.parameters().items()}
    model = LoraModel.fresh(below, lora(base), seed=1)
    tokens = torch.tensor([[3, 4, 5, 6]])
    assert torch.equal(model.forward(tokens), dense(base).forward(tokens)), "it starts as the base itself"
    model.forward(tokens).logsumexp(-1).sum().backward()
    assert all(parameter.grad is None for parameter in below.parameters().values())
    assert all(parameter.grad is not None for parameter in model.parameters().values())
    assert all(torch.equal(parameter, frozen[name]) for name, parameter in below.parameters().items())


def test_the_file_merged_into_the_base_gives_the_trained_logits(base: Path, tmp_path: Path) -> None:
    options = lora(base)
    below = dense(base)
    model = LoraModel.fresh(below, options, seed=1)
    with torch.no_grad():
        for parameter in model.parameters().values():
            parameter.normal_(0.0, 0.2, generator=torch.Generator().manual_seed(parameter.numel()))
    tokens = torch.tensor([[3, 4, 5, 6, 7, 3, 3]])
    merged = dense(base)
    with torch.no_grad():
        for name, addition in model.additions.items():
            merged.parameters()[name].add_(options.alpha / options.rank * addition.b @ addition.a)
        apart = (model.forward(tokens) - merged.forward(tokens)).abs().max()
        assert apart < 1e-4 < (merged.forward(tokens) - dense(base).forward(tokens)).abs().max()


def test_a_stopped_run_ends_as_one_that_was_not(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 4)
    made = recipe(lora(base))

    def stop(progress: Progress) -> None:
        if progress.step == 9:
            raise KeyboardInterrupt

    whole = train_lora(made, laugh, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_lora(made, laugh, tmp_path / "halved", stop)
    halved = train_lora(made, laugh, tmp_path / "halved")
    name = "adapter_model.safetensors"
    assert (whole / name).read_bytes() == (halved / name).read_bytes()


def test_what_cannot_be_adapted_is_refused(base: Path, tmp_path: Path) -> None:
    spec = load_model(base, Ledger()).spec
    with pytest.raises(InvalidRequest, match="bias is no target; give some of q, k, v, o"):
        target_names(spec, ("q", "bias"))
    with pytest.raises(InvalidRequest, match="There is no target"):
        target_names(spec, ())
    with pytest.raises(InvalidRequest, match="kind lora"):
        train_lora(recipe(), echo, tmp_path / "adapter")
    (base / "tokenizer.json").rename(tmp_path / "aside")
    with pytest.raises(UnsupportedModel, match="does not generate text"):
        train_lora(recipe(lora(base)), echo, tmp_path / "adapter")
    (tmp_path / "aside").rename(base / "tokenizer.json")


def test_an_adapter_of_a_quantised_file(smollm2: Path, tmp_path: Path) -> None:
    made = recipe(Lora(str(smollm2), rank=2, targets=("q", "v")), steps=3, batch=2)
    losses: list[float] = []
    folder = train_lora(made, echo, tmp_path / "adapter", lambda progress: losses.append(progress.loss))
    held = load_file(folder / "adapter_model.safetensors")
    assert held["base_model.model.model.layers.29.self_attn.q_proj.lora_A.weight"].shape == (2, 576)
    assert len(held) == 30 * 2 * 2 and losses[-1] < losses[0]
