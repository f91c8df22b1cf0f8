"""A question with its known answer, which no strategy ever sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from headrace.reason.task import Task

Verdict: TypeAlias = Literal["right", "wrong", "undecided"]


@dataclass(frozen=True, slots=True)
class Item:
    """`task` is all that a run gets; `gold` and `check` stay here. `id` is the same in every run of the task.

    `check`: a scorer of the task's own, which may accept answers that differ from `gold`. `so_far`: an exact
    scorer of unfinished texts, 1 where every step is right; only oracle runs ask it.
    """

    id: str
    task: Task
    gold: str | None
    check: Callable[[str], bool] | None = None
    so_far: Callable[[str], float] | None = None

    def verdict(self, answer: str) -> Verdict:
        """Undecided: the comparison was given up because it took too long."""
        space, gold = self.task.answers, self.gold
        if gold is not None and (answer == gold or space.equal(gold, answer) or space.equal(answer, gold)):
            return "right"
        if self.check is not None:
            return "right" if self.check(answer) else "wrong"
        gave_up = getattr(space, "undecided", None)
        return "undecided" if gold is not None and gave_up is not None and gave_up(gold, answer) else "wrong"
