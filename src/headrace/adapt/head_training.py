"""Training a value head on hidden states and labels: seconds, whatever the size of the model they come from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from headrace.adapt.head import Head
from headrace.adapt.recipe import Recipe, ValueHead
from headrace.adapt.train import Report, Run, work_folder
from headrace.spec.errors import InvalidRequest


def train_head(
    recipe: Recipe, states: np.ndarray, labels: Sequence[float] | np.ndarray, folder: Path, report: Report | None = None
) -> Head:
    """Trains the recipe's head and writes it to `folder`, which appears whole or not at all.

    `states` [n, hidden] as `read_states` gives them, `labels` [n] from 0 to 1. Each step learns from
    `recipe.batch` of them. A stopped run goes on when this is called again with the same recipe and data.
    Raises InvalidRequest for data that do not fit together.
    """
    run, scale = _begun(recipe, states, labels, work_folder(folder))
    run.finish(report)
    head = _head(recipe, run, scale)
    run.publish(folder, head.save)
    return head


def held_out(
    recipe: Recipe, states: np.ndarray, labels: Sequence[float] | np.ndarray, groups: Sequence[str], folds: int = 5
) -> np.ndarray:
    """What heads of the recipe say of rows they did not learn from: probabilities [n].

    Whole groups belong to one fold, dealt out in the order of their hashes; the head that judges a fold learned
    from all others. Nothing is kept. Raises InvalidRequest as `train_head` does, and for fewer groups than folds.
    """
    dealt = sorted(set(groups), key=lambda group: hashlib.sha256(group.encode()).digest())
    if len(dealt) < folds:
        raise InvalidRequest(f"{len(dealt)} questions are too few for {folds} folds; give at least {folds}.", "groups")
    place = {group: number % folds for number, group in enumerate(dealt)}
    fold, targets = np.array([place[group] for group in groups]), np.asarray(labels, np.float32)
    said = np.zeros(len(fold), np.float32)
    for number in range(folds):
        out = fold == number
        with TemporaryDirectory() as work:
            run, scale = _begun(recipe, states[~out], targets[~out], Path(work))
            run.finish()
        said[out] = _head(recipe, run, scale)(states[out])
    return said


Scale = tuple[np.ndarray, np.ndarray]
"""Mean and deviation of the states that a head learns from."""


def _begun(recipe: Recipe, states: np.ndarray, labels: Sequence[float] | np.ndarray, work: Path) -> tuple[Run, Scale]:
    if not isinstance(recipe.train, ValueHead):
        raise InvalidRequest(f"Recipe {recipe.name!r} does not train a head; give one of kind head.", "train")
    targets = np.asarray(labels, np.float32)
    _check(states, targets)
    middle, spread = states.mean(0), states.std(0) + 1e-6
    x, y = torch.from_numpy((states - middle) / spread).float(), torch.from_numpy(targets)
    parameters = _first(states.shape[1], recipe.train.width, recipe.seed)

    def loss(step: int) -> Tensor:
        rows = torch.randint(len(y), (recipe.batch,), generator=torch.Generator().manual_seed(recipe.seed + step))
        return F.binary_cross_entropy_with_logits(_logit(parameters, x[rows]), y[rows])

    return Run(recipe, parameters, loss, work), (middle, spread)


def _head(recipe: Recipe, run: Run, scale: Scale) -> Head:
    assert isinstance(recipe.train, ValueHead)
    return Head(_unscaled(run.weights(), *scale), recipe.train.state, recipe.train.base)


def _check(states: np.ndarray, targets: np.ndarray) -> None:
    if states.ndim != 2 or targets.shape != states.shape[:1] or not len(targets):
        raise InvalidRequest(
            f"States {list(states.shape)} and labels {list(targets.shape)} do not fit; give [n, hidden] and [n].",
            "labels",
        )
    if not (np.isfinite(targets).all() and targets.min() >= 0 and targets.max() <= 1):
        raise InvalidRequest("A label is outside 0 to 1; give probabilities.", "labels")


def _first(hidden: int, width: int, seed: int) -> dict[str, torch.nn.Parameter]:
    """Layers by number: "0.weight" [out, in] and "0.bias" [out]. The last starts at 0, so that all is undecided."""
    sizes = [hidden, width, 1] if width else [hidden, 1]
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for number, (inputs, out) in enumerate(pairwise(sizes)):
        scale = 0.0 if number == len(sizes) - 2 else inputs**-0.5
        found[f"{number}.weight"] = torch.nn.Parameter(torch.randn(out, inputs, generator=generator) * scale)
        found[f"{number}.bias"] = torch.nn.Parameter(torch.zeros(out))
    return found


def _logit(parameters: dict[str, torch.nn.Parameter], x: Tensor) -> Tensor:
    for number in range(len(parameters) // 2):
        x = F.linear(torch.tanh(x) if number else x, parameters[f"{number}.weight"], parameters[f"{number}.bias"])
    return x[:, 0]


def _unscaled(
    weights: dict[str, np.ndarray], middle: np.ndarray, spread: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """The same head for states as they are read: the first layer takes in the scaling."""
    pairs = [(weights[f"{number}.weight"], weights[f"{number}.bias"]) for number in range(len(weights) // 2)]
    matrix, bias = pairs[0]
    scaled = (matrix / spread).astype(np.float32)
    return (scaled, (bias - scaled @ middle).astype(np.float32)), *pairs[1:]
