"""Questions with lettered options, sets and worlds for an evaluation: tasks whose structure some strategies need."""

from __future__ import annotations

from functools import cache

from headrace.reason.choices import Options
from headrace.reason.tasks import lettered as options
from headrace.reason.tasks import sets as thinking
from headrace.reason.tasks.item import Item
from headrace.reason.tasks.posed import Posed
from headrace.reason.tasks.worlds import world
from headrace.reason.worked import Examples, Worked
from headrace.spec.errors import InvalidRequest

APART = 1_000_000
"""Questions of different seeds are so far apart."""
SHOWN = 40
"""Questions that worked examples are chosen from; they are of a seed below any that is asked."""
DEEPEST = 3


def families() -> list[str]:
    """Of `sets`."""
    return list(thinking.FAMILIES)


def lettered(count: int, seed: int = 0) -> list[Item]:
    """Multiple choice of five kinds in turn, with `choices` and, for medprompt, `examples`."""
    return [_item("lettered", seed, k, options.question(_place(seed, k), examples=examples())) for k in range(count)]


def sets(family: str, count: int, seed: int = 0, wording: int = 0) -> list[Item]:
    """Sets for ThinkSum, with `choices` and `think`. Raises InvalidRequest."""
    if family not in thinking.FAMILIES or not 0 <= wording < thinking.WORDINGS:
        known = ", ".join(families())
        raise InvalidRequest(
            f"sets:{family}(wording={wording}) is unknown; give {known} and a wording below 3.", "task"
        )
    make = thinking.FAMILIES[family]
    return [_item(f"sets:{family}(wording={wording})", seed, k, make(_place(seed, k), wording)) for k in range(count)]


def worlds(count: int, seed: int = 0) -> list[Item]:
    """Facts and rules with distractors, one to three steps deep in turn, with `rules`."""
    return [_item("worlds", seed, k, world(_place(seed, k), 1 + k % DEEPEST).posed) for k in range(count)]


@cache
def examples() -> Examples:
    """Questions with their right letters and no chain of thought, since no model has worked them out."""
    posed = [options.question(k) for k in range(SHOWN)]
    asked: list[tuple[Options, str]] = [(one.task.meta["choices"], one.gold) for one in posed]
    return Examples([Worked(one.stem, one.options, gold, "") for one, gold in asked])


def _place(seed: int, number: int) -> int:
    return (seed + 1) * APART + number


def _item(name: str, seed: int, number: int, posed: Posed) -> Item:
    return Item(f"{name}/{seed}/{number}", posed.task, posed.gold)
