"""A fixed set of lessons: each once an epoch, with plain and with noisy gradients, and looked at afterwards."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

import torch
from msgspec.structs import replace
from safetensors.numpy import load_file

from adapt.small import VOCABULARY, echo, recipe
from headrace.adapt.batches import Batch, Epochs
from headrace.adapt.full import train_full
from headrace.adapt.gradients import Examiner
from headrace.adapt.lesson import Piece
from headrace.adapt.lora import LoraModel, train_lora
from headrace.adapt.noisy import NoisyRun, add_clipped
from headrace.adapt.recipe import Lora, Noise, Optimiser
from headrace.adapt.train import Progress, lesson_loss
from headrace.adapt.vocabulary import END_ID
from headrace.backends.reference.dense import DenseModel
from headrace.engine.engine import Engine
from headrace.model.loading import load_model
from headrace.model.tokenizer import Tokenizer
from headrace.privacy.audit.likelihood import Likelihood
from headrace.spec.errors import ContextExceeded, InvalidRequest
from headrace.spec.ledger import Ledger
from headrace.spec.options import EngineOptions

TEXTS = ("abcd", "bcda", "cabd", "hgfe", "efgh", "aabb", "ccdd", "eeffgg", "gh", "hhhh", "abab")
LESSONS = [(Piece(text),) for text in TEXTS]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_full(recipe(steps=40), echo, VOCABULARY, tmp_path_factory.mktemp("base") / "model")


def tokenizer() -> Tokenizer:
    return Tokenizer(VOCABULARY.core(), eos=(END_ID,))


def rows(batch: Batch) -> list[tuple[int, ...]]:
    return [tuple(tokens[learn]) for tokens, learn in zip(batch.tokens, batch.learn, strict=True)]


def test_every_lesson_is_learned_once_an_epoch() -> None:
    epochs = Epochs(LESSONS, tokenizer(), 4, 64, 5)
    assert len(epochs) == 3
    orders = [[row for step in range(3 * epoch, 3 * epoch + 3) for row in rows(epochs[step])] for epoch in range(3)]
    wanted = Counter(tuple(tokenizer().encode(text)) for text in TEXTS)
    assert [Counter(order) for order in orders] == [wanted] * 3 and orders[0] != orders[1]
    again = Epochs(LESSONS, tokenizer(), 4, 64, 5)
    assert rows(again[7]) == rows(epochs[7]) and rows(Epochs(LESSONS, tokenizer(), 4, 64, 6)[0]) != rows(epochs[0])
    assert [rows(one) for one in epochs[1].each()] == [[row] for row in rows(epochs[1])]
    with pytest.raises(ContextExceeded, match="6 tokens and the context is 5"):
        Epochs(LESSONS, tokenizer(), 4, 5, 1)
    with pytest.raises(InvalidRequest, match="no lessons"):
        Epochs([], tokenizer(), 4, 5, 1)


def noisy_run(base: Path, work: Path, noise: Noise) -> tuple[NoisyRun, LoraModel, Batch]:
    loaded = load_model(base, Ledger())
    made = recipe(Lora(str(base), rank=4, targets=("q", "down"), noise=noise), steps=1)
    model = LoraModel.fresh(DenseModel(loaded.spec, loaded.weights), made.train, seed=1)
    batch = Epochs([(Piece(text),) for text in ("abcd", "hgfe", "ccdd")], tokenizer(), 3, 64, 1)[0]
    losses = [lambda one=one: lesson_loss(model.forward, one) for one in batch.each()]
    return NoisyRun(made, model.parameters(), lambda step: losses, work, noise), model, batch


def gradients(base: Path, work: Path, noise: Noise) -> dict[str, torch.Tensor]:
    run, model, _ = noisy_run(base, work, noise)
    run._fill_gradients()
    return {name: parameter.grad.clone() for name, parameter in model.parameters().items()}


def test_without_noise_and_cut_they_are_the_batch_s_own(base: Path, tmp_path: Path) -> None:
    _, model, batch = noisy_run(base, tmp_path, Noise())
    lesson_loss(model.forward, batch).backward()  # lessons of equal length: the mean of means is the mean
    for name, found in gradients(base, tmp_path, Noise(1e6, 0.0)).items():
        torch.testing.assert_close(found, model.parameters()[name].grad, rtol=1e-4, atol=1e-7)


def test_a_lesson_counts_no_more_than_its_cut_and_noise_is_as_wide_as_told(base: Path, tmp_path: Path) -> None:
    cut = gradients(base, tmp_path, Noise(1e-3, 0.0))
    assert float(torch.stack([found.norm() for found in cut.values()]).norm()) <= 1e-3 * (1 + 1e-4)
    one, again = (gradients(base, tmp_path, Noise(2.0, 3.0)) for _ in range(2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    spread = torch.cat([found.flatten() for found in one.values()]).std()
    assert float(spread) == pytest.approx(2.0 * 3.0 / 3, rel=0.1)  # over three lessons
    sums = [torch.zeros(2)]
    add_clipped(sums, [torch.tensor([3.0, 4.0])], 1.0)
    add_clipped(sums, [torch.tensor([0.3, 0.4])], 1.0)
    torch.testing.assert_close(sums[0], torch.tensor([0.9, 1.2]))


def test_noise_keeps_an_adapter_from_learning_by_heart(base: Path, tmp_path: Path) -> None:
    found = {}
    for name, noise in (("plain", None), ("noisy", Noise(1.0, 20.0))):
        losses: list[float] = []
        lora = Lora(str(base), rank=4, alpha=8.0, targets=("q", "v", "down"), noise=noise)
        made = recipe(lora, steps=24, batch=4)
        folder = train_lora(
            made, LESSONS, tmp_path / name, lambda progress, losses=losses: losses.append(progress.loss)
        )
        found[name] = np.mean(losses[-6:])
        assert (folder / "adapter_model.safetensors").is_file()
    assert found["plain"] < 0.7 * found["noisy"]


def test_muon_steps_are_as_long_in_every_direction(base: Path, tmp_path: Path) -> None:
    """The first one moves B alone, by a matrix whose singular values are alike; killed runs end as whole ones do."""
    lora = Lora(str(base), rank=4, targets=("q", "down"), method="muon")
    optimiser = Optimiser(rate=0.01, warmup=0, final=1.0)
    one = replace(recipe(lora, steps=1, batch=len(LESSONS)), optimiser=optimiser)
    held = load_file(train_lora(one, LESSONS, tmp_path / "one") / "adapter_model.safetensors")
    for name, moved in ((name, value) for name, value in held.items() if "lora_B" in name):
        values = np.linalg.svd(moved, compute_uv=False)
        assert values.max() < 2.5 * values.min(), name
    several = replace(one, steps=4)

    def stop(progress: Progress) -> None:
        if progress.step == 2:
            raise KeyboardInterrupt

    whole = load_file(train_lora(several, LESSONS, tmp_path / "whole") / "adapter_model.safetensors")
    with mock.patch("headrace.adapt.train.CHECKPOINT_EVERY", 1), pytest.raises(KeyboardInterrupt):
        train_lora(several, LESSONS, tmp_path / "cut", stop)
    steps: list[int] = []
    again = train_lora(several, LESSONS, tmp_path / "cut", lambda progress: steps.append(progress.step))
    assert steps == [3, 4]
    found = load_file(again / "adapter_model.safetensors")
    assert all(np.array_equal(whole[name], found[name]) for name in whole)


def test_a_lesson_that_is_a_lone_piece_is_refused(base: Path, tmp_path: Path) -> None:
    lora = Lora(str(base), rank=4, targets=("q",))
    with pytest.raises(InvalidRequest, match="A lesson is a list of pieces"):
        train_lora(recipe(lora, steps=1, batch=1), [Piece("abc")], tmp_path / "lone")  # type: ignore[list-item]


@pytest.mark.parametrize("method", ["adamw", "muon"])
def test_the_factors_a_take_their_share_of_the_rate(base: Path, tmp_path: Path, method: str) -> None:
    optimiser, moved = Optimiser(rate=0.01, warmup=0, final=1.0, decay=0.0), {}
    for share in (0.0, 0.1, 1.0):
        lora = Lora(str(base), rank=4, targets=("q",), method=method, a_rate=share)
        held = {}
        for steps in (1, 2):  # in the first B is nothing, so that A has no gradient
            made = replace(recipe(lora, steps=steps, batch=len(LESSONS)), optimiser=optimiser)
            folder = train_lora(made, LESSONS, tmp_path / f"{share} {steps}")
            held[steps] = load_file(folder / "adapter_model.safetensors")
        lengths = {name: float(np.abs(held[2][name] - held[1][name]).sum()) for name in held[1]}
        moved[share] = {part: sum(v for name, v in lengths.items() if f"lora_{part}" in name) for part in "AB"}
    assert moved[0.0]["A"] == 0 < moved[0.1]["A"] == pytest.approx(0.1 * moved[1.0]["A"], rel=1e-3)
    assert moved[0.0]["B"] == pytest.approx(moved[1.0]["B"], rel=1e-6) and moved[1.0]["B"] > 0


@pytest.mark.parametrize("adapted", [False, True])
def test_a_document_looked_at(base: Path, tmp_path: Path, adapted: bool) -> None:
    """Chances are the engine's; gradients are those of the loss, by layer."""
    adapter = None
    if adapted:
        adapter = train_lora(recipe(Lora(str(base), rank=4, targets=("q", "down")), steps=8), LESSONS, tmp_path / "a")
    ids = tuple(tokenizer().encode("abcdabef"))
    seen = Examiner(base, adapter)(ids)
    adapters = () if adapter is None else (f"one={adapter}",)
    with Engine.load(base, EngineOptions(threads=1, state_memory=8, adapter=adapters)) as engine:
        (wanted,) = Likelihood(engine, "one" if adapted else None)([ids])
    np.testing.assert_allclose(seen.logprobs, wanted, atol=2e-3)
    assert (seen.means < 0).all() and (seen.deviations > 0).all() and seen.gradients.shape == (2,)
    loaded = load_model(base, Ledger())
    dense = DenseModel(loaded.spec, loaded.weights)
    if not adapted:
        logits = dense.forward(torch.tensor([ids[:-1]]))[0]
        torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:])).backward()
        for layer, length in enumerate(seen.gradients):
            own = [p.grad for name, p in dense.parameters().items() if name.startswith(f"layers.{layer}.")]
            assert length == pytest.approx(float(torch.stack([part.norm() for part in own]).norm()), rel=1e-4)
        chances = torch.softmax(logits[0].double(), -1)
        assert seen.means[0] == pytest.approx(float((chances * chances.log()).sum().detach()), rel=1e-4)
