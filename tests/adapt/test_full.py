"""Whole training: it learns, goes on after it was stopped or killed, and what it writes runs in the engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

import torch

from adapt.small import VOCABULARY, echo, recipe
from headrace.adapt import train
from headrace.adapt.full import train_full
from headrace.adapt.lesson import Piece
from headrace.adapt.recipe import Full, Lora, read_recipe
from headrace.adapt.train import Progress
from headrace.backends.reference.dense import DenseModel
from headrace.engine.llm import LLM
from headrace.model.loading import load_model
from headrace.spec.errors import InvalidRequest
from headrace.spec.ledger import Ledger
from headrace.spec.options import EngineOptions
from headrace.spec.sampling import Sampling

LOGPROB_TOLERANCE = 1e-4


class Stopped(Exception):
    pass


def stop_at(step: int) -> Any:
    def report(progress: Progress) -> None:
        if progress.step == step:
            raise Stopped

    return report


def train_here(folder: Path, report: Any = None, **changes: Any) -> Path:
    return train_full(recipe(**changes), echo, VOCABULARY, folder, report)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != train.TRAINING}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_here(tmp_path_factory.mktemp("full") / "model")


def test_the_loss_falls_and_the_folder_is_whole(tmp_path: Path) -> None:
    losses: list[float] = []
    folder = train_here(tmp_path / "model", lambda progress: losses.append(progress.loss), steps=60)
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "model.safetensors", "recipe.json", "tokenizer.json", "tokenizer_config.json",
        "training.json",
    }  # fmt: skip
    assert read_recipe(folder / "recipe.json") == recipe(steps=60)
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "no checkpoint is left behind"


@pytest.mark.parametrize("step", [1, 4, 11, 20])
def test_a_stopped_run_ends_as_one_that_was_not(
    step: int, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 4)
    with pytest.raises(Stopped):
        train_here(tmp_path / "model", stop_at(step))
    assert not (tmp_path / "model").exists()
    steps: list[int] = []
    train_here(tmp_path / "model", lambda progress: steps.append(progress.step))
    assert len(steps) == 20 - step // 4 * 4, "it goes on from the last checkpoint"
    assert bytes_of(tmp_path / "model") == bytes_of(trained)


def test_a_killed_run_ends_as_one_that_was_not(trained: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom adapt.small import *\nfrom headrace.adapt import train\n"
        "from headrace.adapt.full import train_full\ntrain.CHECKPOINT_EVERY = 3\n"
        f"train_full(recipe(), echo, VOCABULARY, Path({str(tmp_path / 'model')!r}), "
        "lambda progress: print(progress.step, flush=True))"
    )
    environment = os.environ | {"PYTHONPATH": ":".join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    for line in process.stdout:
        if line == "8\n":
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    train_here(tmp_path / "model")
    assert bytes_of(tmp_path / "model") == bytes_of(trained)


@pytest.mark.parametrize("damage", ["cut", "other recipe"])
def test_a_checkpoint_that_does_not_fit_counts_as_none(damage: str, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train_here(tmp_path / "model", stop_at(20), **({"seed": 4} if damage == "other recipe" else {}))
    checkpoint = tmp_path / "model.training" / train.CHECKPOINT
    if damage == "cut":
        checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    train_here(tmp_path / "model")
    assert bytes_of(tmp_path / "model") == bytes_of(trained)


def test_the_seed_decides(trained: Path, tmp_path: Path) -> None:
    other = train_here(tmp_path / "model", seed=4)
    assert (other / "model.safetensors").read_bytes() != (trained / "model.safetensors").read_bytes()


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_the_engine_gives_the_trainers_logits(backend: Any, trained: Path) -> None:
    if backend == "native":
        pytest.importorskip("headrace.backends.native._kernels", reason="the native kernels were not built")
    loaded = load_model(trained, Ledger())
    text = "abcdefgh>habc\ngf>ed"
    with LLM(trained, EngineOptions(backend=backend, state_type="fp32", threads=1)) as llm:
        ids = llm.engine.encode(text)
        assert len(ids) == len(text)
        with llm.engine.open_now(ids[:1]) as sequence:
            (ours,) = sequence.score([ids[1:]]).result()
        (done,) = llm.generate("abc>", Sampling(temperature=0))
        assert done.steps[0].finish_reason in ("stop", "length") and "<" not in done.text
    with torch.no_grad():
        logits = DenseModel(loaded.spec, loaded.weights).forward(torch.tensor([ids]))[0]
    theirs = torch.log_softmax(logits, -1)[torch.arange(len(ids) - 1), ids[1:]].numpy()
    assert np.abs(np.array(ours) - theirs).max() < LOGPROB_TOLERANCE


def test_a_run_that_fails_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="The loss of step 1 is not a number; lower the rate"):
        train_full(recipe(), lambda rng: [Piece("abc", learn=False)], VOCABULARY, tmp_path / "model")


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="kind full"):
        train_here(tmp_path / "model", train=Lora("base"))
    with pytest.raises(InvalidRequest, match="at most 5,000,000"):
        train_here(tmp_path / "model", train=Full(12, 256, 4, 4, 1024, 64))
