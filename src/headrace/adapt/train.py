"""The training loop: steps that depend on the seed and their number alone, and checkpoints to go on from.

A run that is killed at any moment goes on from its last checkpoint and ends with the same weights, bit for bit.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

# Threads that spin at a barrier stall for whole time slices when another process takes a core.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from headrace.adapt.batches import Batch
from headrace.adapt.recipe import Lora, Optimiser, Recipe, write_recipe
from headrace.spec.errors import InvalidRequest

CHECKPOINT_EVERY = 100
"""Steps of work that a killed run loses at most."""
CHECKPOINT = "checkpoint.safetensors"
RECIPE, TRAINING = "recipe.json", "training.json"
"""Stand beside every result: what it was made of, and the seconds that took."""
_MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW keeps between steps."""


@dataclass(frozen=True, slots=True)
class Progress:
    """After step `step` of `steps`: its loss (nats a token or a label), seconds since this call began."""

    step: int
    steps: int
    loss: float
    seconds: float


Report: TypeAlias = Callable[[Progress], None]
Forward: TypeAlias = Callable[[Tensor], Tensor]
"""tokens [lessons, length] -> logits [lessons, length, vocab]."""


class Run:
    """One training run. `loss(step)`: what to make small at that step; `work`: the folder of the checkpoint."""

    def __init__(
        self, recipe: Recipe, parameters: Mapping[str, torch.nn.Parameter], loss: Callable[[int], Tensor], work: Path
    ) -> None:
        self.recipe, self._loss, self._work = recipe, loss, work
        self._parameters = dict(parameters)
        lora = recipe.train if isinstance(recipe.train, Lora) else None
        muon = lora is not None and lora.method == "muon"
        self._moments = () if muon else _MOMENTS
        groups = _groups(self._parameters, recipe.optimiser, lora.a_rate if lora is not None else 1.0)
        self._optimiser = (_muon if muon else _adamw)(groups, recipe.optimiser)
        self.step, self._spent = 0, (0.0, 0.0)
        self._resume()

    def finish(self, report: Report | None = None) -> None:
        """Runs all steps that are left; `report` may raise to stop. Raises InvalidRequest where the loss overflows."""
        began, before = _clocks(), self._spent
        with compute_threads(self.recipe.threads):
            while self.step < self.recipe.steps:
                loss = self._learn()
                self.step += 1
                wall, cpu = (clock - start for clock, start in zip(_clocks(), began, strict=True))
                self._spent = before[0] + wall, before[1] + cpu
                if self.step % CHECKPOINT_EVERY == 0 or self.step == self.recipe.steps:
                    self._save()
                if report is not None:
                    report(Progress(self.step, self.recipe.steps, loss, wall))

    def weights(self) -> dict[str, np.ndarray]:
        return {name: parameter.detach().numpy() for name, parameter in self._parameters.items()}

    def publish(self, folder: Path, write: Callable[[Path], None]) -> Path:
        """Has `write` make the result, which then appears at `folder` in one step; the checkpoint goes."""
        ready = self._work / "result"
        ready.mkdir(parents=True, exist_ok=True)
        write(ready)
        write_recipe(self.recipe, ready / RECIPE)
        wall, cpu = (round(seconds, 1) for seconds in self._spent)
        about = {"seconds": wall, "cpu_seconds": cpu, "threads": self.recipe.threads, "torch": torch.__version__}
        (ready / TRAINING).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        ready.rename(folder)
        shutil.rmtree(self._work)
        return folder

    def _learn(self) -> float:
        for group in self._optimiser.param_groups:
            group["lr"] = group["share"] * self.recipe.optimiser.rate_at(self.step, self.recipe.steps)
        loss = self._fill_gradients()
        self._optimiser.step()
        return loss

    def _fill_gradients(self) -> float:
        """Leaves this step's gradients on the parameters and gives its loss."""
        loss = self._loss(self.step)
        self._check_finite(loss)
        self._optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters.values(), self.recipe.optimiser.clip)
        return loss.item()

    def _check_finite(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise InvalidRequest(
                f"The loss of step {self.step + 1} is not a number; lower the rate, or check that the lessons have"
                " something to learn.",
                "optimiser",
            )

    def _save(self) -> None:
        held = {f"{name} weight": parameter.detach() for name, parameter in self._parameters.items()}
        for name, parameter in self._parameters.items():
            held |= {f"{name} {moment}": self._optimiser.state[parameter][moment] for moment in self._moments}
        self._work.mkdir(parents=True, exist_ok=True)
        fresh = self._work / f"{CHECKPOINT}.new"
        about = {"step": self.step, "recipe": self.recipe.digest, "wall": self._spent[0], "cpu": self._spent[1]}
        save_file(held, fresh, metadata={key: str(value) for key, value in about.items()})
        fresh.replace(self._work / CHECKPOINT)

    def _resume(self) -> None:
        """Takes up a checkpoint of this recipe; one that is damaged or of another recipe counts as none."""
        try:
            with safe_open(self._work / CHECKPOINT, "pt") as file:
                about = file.metadata() or {}
                if about.get("recipe") != self.recipe.digest:
                    return
                held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            return
        self.step, self._spent = int(about["step"]), (float(about["wall"]), float(about["cpu"]))
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(held[f"{name} weight"])
                moments = {moment: held[f"{name} {moment}"] for moment in self._moments}
                if moments:
                    self._optimiser.state[parameter] = {"step": torch.tensor(float(self.step)), **moments}


def lesson_loss(forward: Forward, batch: Batch) -> Tensor:
    """Mean negative log-likelihood in nats of the tokens that are to be learned; padding follows all of them."""
    logits = forward(torch.from_numpy(batch.tokens[:, :-1]))
    learn = torch.from_numpy(batch.learn[:, 1:])
    return F.cross_entropy(logits[learn], torch.from_numpy(batch.tokens[:, 1:])[learn])


def work_folder(folder: Path) -> Path:
    """Where the checkpoint of a result is kept until the result is there."""
    return folder.with_name(f"{folder.name}.training")


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


Group: TypeAlias = dict[str, Any]


def _groups(parameters: Mapping[str, torch.nn.Parameter], options: Optimiser, a_rate: float) -> list[Group]:
    """By decay, which is for matrices alone, and by the share of the rate, which an adapter's factors A have."""
    found: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in parameters.items():
        share = a_rate if name.endswith(".a") else 1.0
        found.setdefault((options.decay if parameter.dim() > 1 else 0.0, share), []).append(parameter)
    return [{"params": some, "weight_decay": decay, "share": share} for (decay, share), some in found.items()]


def _adamw(groups: Sequence[Group], options: Optimiser) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, options.rate, (options.beta1, options.beta2), foreach=True)


def _muon(groups: Sequence[Group], options: Optimiser) -> torch.optim.Optimizer:
    """Without momentum it keeps nothing between steps."""
    groups = [group | {"weight_decay": 0.0} for group in groups]
    return torch.optim.Muon(groups, options.rate, momentum=0.0, nesterov=False)


@contextmanager
def compute_threads(count: int) -> Iterator[None]:
    """That many threads of torch, as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
