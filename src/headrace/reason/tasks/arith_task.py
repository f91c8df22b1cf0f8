"""ARITH as strategies see it: steps end with a line break, and the models of LM-T can be asked for their verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.reason.answers import Number
from headrace.reason.scorers.checker import Checker
from headrace.reason.scorers.judge import Judge
from headrace.reason.task import Task
from headrace.reason.tasks.arith import CHECK, VERDICTS, Problem, marks
from headrace.spec.reasoning import Score, Scored, ScorerKind
from headrace.spec.sampling import Stop

LINE, WHOLE = 24, 160
"""Tokens that no line and no solution reaches unless it goes astray."""


def task_of(problem: Problem) -> Task:
    """The question as it stands; `meta` has the problem for checkers alone."""
    step = Stop(tokens=LINE, text=("\n",), include=True)
    return Task(problem.question, Number(), step, Stop(tokens=WHOLE), chat=False, meta={"problem": problem})


def right_so_far(item: Scored) -> float:
    """1 where every line is the right one, else 0."""
    return float(all(marks(item.meta["problem"], item.text)))


def arith_checker(noise: float = 0.0, seed: int = 0) -> Checker:
    """The exact oracle of every step, or with noise a process reward model of known quality."""
    return Checker(right_so_far, noise, seed, name=f"arith_checker({noise:g})")


_AFTER_LINE = Judge(CHECK, *VERDICTS)
_AFTER_ANSWER = Judge("\n" + CHECK, *VERDICTS)


@dataclass(frozen=True, slots=True)
class ArithJudge:
    """The verdict that the models of LM-T were trained to give, on a line of its own after any step."""

    name: str = "arith_judge"
    kind: ScorerKind = "judge"
    sound: bool = False
    oracle: bool = False

    async def score(self, items: Sequence[Scored]) -> list[Score]:
        judges = [_AFTER_LINE if item.text.endswith("\n") else _AFTER_ANSWER for item in items]
        pairs = zip(judges, items, strict=True)
        return [score for (score,) in await asyncio.gather(*(judge.score([item]) for judge, item in pairs))]
