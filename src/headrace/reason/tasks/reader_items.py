"""READER's questions for an evaluation: of the split that no model learned from, with what strategies need of them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import get_args

from headrace.reason.task import Task
from headrace.reason.tasks.arith import Split
from headrace.reason.tasks.item import Item
from headrace.reason.tasks.reader import Family, questions
from headrace.reason.tasks.reader_lessons import worked
from headrace.reason.worked import Examples
from headrace.spec.errors import InvalidRequest

SHOWN = 40
"""Worked examples that medprompt may choose from."""


def families() -> list[str]:
    return list(get_args(Family))


def reader(
    family: Family,
    count: int,
    seed: int = 0,
    split: Split = "eval",
    depth: int | None = None,
    distractors: int | None = None,
) -> list[Item]:
    """`count` questions; `depth` and `distractors` are the dial of worlds. Raises InvalidRequest."""
    if split not in ("eval", "tune"):
        raise InvalidRequest(f"split is {split!r}; give eval, or tune for what comes before an evaluation.", "split")
    dials = {"depth": depth, "distractors": distractors}
    given = {name: value for name, value in dials.items() if value is not None}
    if given and family != "worlds":
        raise InvalidRequest(f"reader:{family} has no {', '.join(given)}; leave it out, or ask reader:worlds.", "task")
    drawn = questions(family, count, seed, split, **given)
    told = given | ({"split": split} if split != "eval" else {})
    name = f"reader:{family}" + (f"({', '.join(f'{key}={value!r}' for key, value in told.items())})" if told else "")
    return [
        Item(f"{name}/{seed}/{number}", _task(family, posed.task), posed.gold) for number, posed in enumerate(drawn)
    ]


def _task(family: Family, task: Task) -> Task:
    return replace(task, meta={**task.meta, "examples": examples()}) if family == "lettered" else task


@cache
def examples() -> Examples:
    """Questions of the training split with the chains that the lessons teach."""
    return Examples([worked(posed) for posed in questions("lettered", SHOWN, split="train")])
