"""Trains a probe on stored attempts: which questions it may see, and how well it tells right from wrong."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.adapt.recipe import Optimiser, Recipe, Source, ValueHead
from headrace.reason.evaluation.pooled import ATTEMPT
from headrace.reason.evaluation.states import Examples, Part, readable
from headrace.reason.evaluation.store import Sample, Store
from headrace.reason.statistics import auc
from headrace.reason.tasks.item import Item
from headrace.reason.tasks.registry import items
from headrace.spec.errors import InvalidRequest

if TYPE_CHECKING:
    from headrace.adapt.train import Report

FIGURES = "held_out.json"
PARTS: tuple[Part, ...] = ("half", "end")
FOLDS = 5
"""Parts of the questions, each judged by a head that learned from the others: the fewest that train a probe."""
STEPS, WIDTH = 100, 32
OPTIMISER = Optimiser(rate=1e-3, warmup=20, final=0.0, decay=1.0)
"""Few steps and a large decay: a few hundred questions have to do for some ten thousand weights."""


def pool_of(store: Store) -> list[Sample]:
    """Its attempts, by question and draw."""
    found = [sample for sample in store.samples.values() if sample.strategy == ATTEMPT and sample.budget == "{}"]
    return sorted(found, key=lambda sample: (sample.item, sample.draw))


def questions(store: Store) -> dict[str, Item]:
    """The questions of a store, by id, made again from its task and seed. Raises InvalidRequest where one is gone."""
    wanted = {sample.item for sample in store.samples.values()}
    count, found = max(len(wanted), 1), dict[str, Item]()
    while not wanted <= found.keys():
        if count > 64 * len(wanted):
            raise InvalidRequest(f"{store.path} has questions that its task does not give any more.", "store")
        found = {item.id: item for item in items(store.settings["task"], count, store.settings["seed"])}
        count *= 2
    return {name: found[name] for name in sorted(wanted)}


def apart(asked: Mapping[str, Item], evaluated: Collection[Item]) -> dict[str, Item]:
    """Those of `asked` that are not among the questions of an evaluation, neither by their id nor by their text."""
    ids, texts = {item.id for item in evaluated}, {item.task.question for item in evaluated}
    return {name: item for name, item in asked.items() if name not in ids and item.task.question not in texts}


def check_enough(samples: Iterable[Sample]) -> None:
    """Raises InvalidRequest where attempts are of too few questions, all right or all wrong, before one is read."""
    asked = readable(samples)
    questions, right = len({sample.item for sample in asked}), sum(sample.kind == "right" for sample in asked)
    if questions < FOLDS:
        raise InvalidRequest(
            f"A probe needs attempts at {FOLDS} questions, better at a hundred, and here are some at {questions}; "
            "draw more with headrace eval --questions N --samples 4 -s single.",
            "store",
        )
    if right in (0, len(asked)):
        raise InvalidRequest(
            f"A probe learns from right and wrong attempts, and {right} of these {len(asked)} are right; "
            f"draw some at {'a harder' if right else 'an easier'} task.",
            "store",
        )


def recipe_of(
    examples: Examples, base: str, state: str, width: int = WIDTH, seed: int = 0, steps: int = STEPS
) -> Recipe:
    """A head of one layer of `width` units, or with 0 of none, for states `state` of the model `base`."""
    source = Source("attempts", settings={"rows": len(examples.items), "digest": examples.digest})
    return Recipe("probe", ValueHead(base, state, width), source, steps, 256, seed, 1, OPTIMISER)


def train_probe(
    examples: Examples, recipe: Recipe, folder: Path, evaluated: Collection[str] = (), report: Report | None = None
) -> dict[str, Any]:
    """Writes a probe to `folder` and returns what heads made the same way said of questions they had not seen.

    Needs torch. Raises InvalidRequest where a question is among the ids `evaluated`, and where all attempts are
    right or all wrong.
    """
    from headrace.adapt.head_training import held_out, train_head

    if seen := sorted(set(examples.items) & set(evaluated)):
        raise InvalidRequest(
            f"{len(seen)} of the questions are evaluated on, {seen[0]} among them; train without them.", "store"
        )
    said = held_out(recipe, examples.states, examples.labels, examples.items, FOLDS)
    figures = quality(examples, said)
    train_head(recipe, examples.states, examples.labels, folder, report)
    (folder / FIGURES).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return figures


def quality(examples: Examples, said: np.ndarray) -> dict[str, Any]:
    """AUC of `said` [n] for an attempt's final outcome, at its end and half-way, with 95 % intervals over questions."""
    found: dict[str, Any] = {"questions": len(set(examples.items)), "attempts": int(examples.at("end").sum())}
    for part in PARTS:
        rows = np.flatnonzero(examples.at(part))
        names = [examples.items[row] for row in rows]
        value, interval = auc(said[rows].tolist(), examples.right[rows].tolist(), names)
        found[part] = {"auc": value, "interval": list(interval), "attempts": len(rows)}
    return found
