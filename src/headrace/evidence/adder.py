"""A model that adds in steps and errs at a known rate: what strategies are put to where no weights are at hand."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.evidence.scripted import END, Chances
from headrace.reason.tasks.arith import ANSWER, CHECK, VERDICTS, Problem, apply, line, marks


def adder(problems: Sequence[Problem], error: float = 0.15, doubt: float = 0.2) -> Chances:
    """Writes ARITH's sums a line a step, the last digit of each wrong with chance `error`, and goes on from there.

    Asked for its verdict, it misjudges with chance `doubt`.
    """
    known = {problem.question: problem for problem in problems}

    def chances(text: str) -> dict[str, float]:
        question, _, said = text.partition("\n")
        problem = known[f"{question}\n"]
        before, asked, verdict = said.rpartition(CHECK)
        if asked:
            return _verdict(all(marks(problem, before.rstrip("\n"))), verdict, doubt)
        *done, current = said.split("\n")
        return _next(problem, done, current, error)

    return chances


def _verdict(right: bool, said: str, doubt: float) -> dict[str, float]:
    yes, no = VERDICTS
    if not said:
        return {yes[0]: 1 - doubt if right else doubt, no[0]: doubt if right else 1 - doubt}
    word = yes if yes.startswith(said) else no
    return {word[len(said)] if len(said) < len(word) else END: 1.0}


def _next(problem: Problem, done: Sequence[str], current: str, error: float) -> dict[str, float]:
    value = int(done[-1].rpartition("=")[2]) if done else problem.start
    answers = len(done) >= len(problem.operations)
    operation = problem.operations[min(len(done), len(problem.operations) - 1)]
    whole = f"{ANSWER}{value}" if answers else line(value, operation, apply(value, operation))
    if len(current) >= len(whole):
        return {END if answers else "\n": 1.0}
    letter = whole[len(current)]
    if answers or len(current) < len(whole) - 1:
        return {letter: 1.0}
    return {letter: 1 - error, str((int(letter) + 1) % 10): error}
