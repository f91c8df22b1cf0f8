"""ARITH's questions for an evaluation: what `arith.problems` draws, without the problem behind it."""

from __future__ import annotations

from dataclasses import replace

from headrace.reason.tasks.arith import Family, Problem, Split, marks, problems
from headrace.reason.tasks.arith_task import task_of
from headrace.reason.tasks.item import Item
from headrace.spec.errors import InvalidRequest

FAMILIES = ("sums", "words")
STEPS = 4


def families() -> list[str]:
    return list(FAMILIES)


def arith(
    family: Family, count: int, seed: int = 0, steps: int = STEPS, largest: int = 9, split: Split = "eval"
) -> list[Item]:
    """`count` questions of the split that no model and no scorer was trained on, or of `tune`, for probes.

    Raises InvalidRequest.
    """
    if split not in ("eval", "tune"):
        raise InvalidRequest(f"split is {split!r}; give eval, or tune to train a probe.", "split")
    drawn = problems(family, steps, count, seed, split, largest)
    dials = f"largest={largest}, " + (f"split={split!r}, " if split != "eval" else "") + f"steps={steps}"
    return [_item(f"arith:{family}({dials})/{seed}/{number}", problem) for number, problem in enumerate(drawn)]


def _item(name: str, problem: Problem) -> Item:
    task = replace(task_of(problem), meta={})
    return Item(name, task, str(problem.answer), so_far=lambda text: float(all(marks(problem, text))))
