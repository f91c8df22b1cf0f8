"""reasoning-gym: 106 generators of puzzles with scorers of their own (2505.24760)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from headrace.reason.answers import Line, Number
from headrace.reason.answers.marks import told, whole_number
from headrace.reason.task import Task
from headrace.reason.tasks.item import Item
from headrace.spec.errors import InvalidRequest
from headrace.spec.sampling import Stop

ASK = "\n\nReason step by step, and put your final answer within \\boxed{}."
STEP = Stop(tokens=96, text=("\n\n",), include=True)
ENDING = Stop(tokens=384)
_PLAIN = re.compile(r"[-+]?[0-9.,/]+")
"""An answer that is a number; 1e5 may be one of base 16."""
DRAWN = 1000
"""Least size of a data set, so that asking for more questions keeps those there were."""


def gym(family: str, count: int, seed: int = 0, **settings: Any) -> list[Item]:
    """`count` questions of one generator; its own settings are the difficulty. Raises InvalidRequest."""
    library = _library()
    if family not in library.factory.DATASETS:
        raise InvalidRequest(f"reasoning-gym has no generator {family!r}; see `headrace eval --task gym`.", "task")
    try:
        found = library.create_dataset(family, size=max(count, DRAWN), seed=seed, **settings)
    except (AssertionError, TypeError, ValueError) as error:
        raise InvalidRequest(f"gym:{family} does not take these settings ({error}); correct them.", "task") from None
    name = f"{family}({', '.join(f'{key}={value!r}' for key, value in sorted(settings.items()))})"
    return [_item(f"gym:{name}/{seed}/{number}", found, number) for number in range(count)]


def families() -> list[str]:
    """The names of all generators."""
    return sorted(_library().factory.DATASETS)


def _library() -> Any:
    try:
        import reasoning_gym
    except ImportError:
        raise InvalidRequest(
            "Tasks of gym need reasoning-gym; install it with pip install 'headrace[gym]'.", "task"
        ) from None
    return reasoning_gym


def _item(name: str, dataset: Any, number: int) -> Item:
    entry = dataset[number]
    answer = entry["answer"]
    value = whole_number(str(answer)) if _PLAIN.fullmatch(str(answer)) else None
    space = Line() if value is None else Number()
    gold = (None if answer is None else Line().extract(str(answer))) if value is None else told(value)
    task = Task(entry["question"].strip() + ASK, space, STEP, ENDING)
    return Item(name, task, gold, _scorer(dataset, entry))


def _scorer(dataset: Any, entry: dict[str, Any]) -> Callable[[str], bool]:
    def right(answer: str) -> bool:
        try:
            return bool(dataset.score_answer(answer, entry) >= 1)
        except Exception:  # the library's scorers read whatever the model wrote, and some stumble over it
            return False

    return right
