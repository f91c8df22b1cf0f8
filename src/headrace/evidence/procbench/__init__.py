"""ProcBench's idea, generated here: tasks that spell out their procedure and are checked at every step."""

from __future__ import annotations

from headrace.evidence.procbench import lists, numbers, strings
from headrace.evidence.procbench.curve import Curve
from headrace.evidence.procbench.metrics import Score, score
from headrace.evidence.procbench.prompt import answer, conversation, normalise, question, read_answer
from headrace.evidence.procbench.task import Family, Task, interpret, make_task

FAMILIES: dict[str, Family] = {
    family.name: family for family in (*numbers.FAMILIES, *lists.FAMILIES, *strings.FAMILIES)
}


def grade(task: Task, text: str) -> Score:
    """The scores of a model's answer to a task."""
    gold = [normalise(state, task.form) for state in task.gold]
    return score(gold, read_answer(text, task.form))


__all__ = [
    "FAMILIES",
    "Curve",
    "Family",
    "Score",
    "Task",
    "answer",
    "conversation",
    "grade",
    "interpret",
    "make_task",
    "normalise",
    "question",
    "read_answer",
    "score",
]
