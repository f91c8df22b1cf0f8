"""A task with the answer that is known to be right, which no strategy sees."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.reason.task import Task


@dataclass(frozen=True, slots=True)
class Posed:
    """`gold` in the canonical form of the task's answers. `family`: the generator's name for its kind."""

    task: Task
    gold: str
    family: str

    def right(self, answer: str | None) -> bool:
        return answer is not None and self.task.answers.equal(answer, self.gold)
