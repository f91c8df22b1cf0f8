"""ARITH's questions for an evaluation: what `arith.problems` draws, without the problem behind it."""

from __future__ import annotations

from dataclasses import replace

from headrace.reason.tasks.arith import Family, Problem, marks, problems
from headrace.reason.tasks.arith_task import task_of
from headrace.reason.tasks.item import Item

FAMILIES = ("sums", "words")
STEPS = 4


def families() -> list[str]:
    return list(FAMILIES)


def arith(family: Family, count: int, seed: int = 0, steps: int = STEPS, largest: int = 9) -> list[Item]:
    """`count` questions of the split that no model and no scorer was trained on. Raises InvalidRequest."""
    drawn = problems(family, steps, count, seed, "eval", largest)
    name = f"arith:{family}(largest={largest}, steps={steps})/{seed}"
    return [_item(f"{name}/{number}", problem) for number, problem in enumerate(drawn)]


def _item(name: str, problem: Problem) -> Item:
    task = replace(task_of(problem), meta={})
    return Item(name, task, str(problem.answer), so_far=lambda text: float(all(marks(problem, text))))
