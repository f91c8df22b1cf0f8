"""A synthetic set whose model, slips and scorer are known: running sums, a line a step, each line wrong now and then.

Behind prompts that show earlier attempts the model slips less; what else it is asked it leaves unanswered, and
strategies have to do without.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from random import Random

from headrace.evidence.scripted import END
from headrace.reason.answers import Number
from headrace.reason.scorers.checker import Checker
from headrace.reason.task import Task
from headrace.spec.reasoning import Scored
from headrace.spec.sampling import Stop

SLIP, SECOND_SLIP = 0.2, 0.1
"""The chance of a wrong result, at each line: of a first attempt, and of one that saw others."""
OFF = (-3, -2, -1, 1, 2, 3)
ATTEMPT = 20
"""Tokens of an attempt, on average."""

_QUESTION = re.compile(r"(\d+(?:\+\d+)+)=\n")
_AGAIN = re.compile(r"complete answer\.\n*")


def sums(count: int) -> list[Task]:
    step, ending = Stop(tokens=8, text=("\n",), include=True), Stop(tokens=40)
    return [Task(_question(Random(f"sum/{k}")), Number(), step, ending, chat=False) for k in range(count)]


def _question(rng: Random) -> str:
    return "+".join(str(rng.randint(2, 19)) for _ in range(4)) + "=\n"


def gold(task: Task) -> str:
    return str(sum(_numbers(task.question)))


def scorer(noise: float = 1.0) -> Checker:
    """Whether every line is right so far; with this noise a right one nearly always scores higher than a wrong one."""
    return Checker(right_so_far, noise=noise)


def right_so_far(item: Scored) -> float:
    first, *rest = _numbers(item.question)
    values = [int(word) for word in re.findall(r"\d+", item.text)]
    truth = []
    for number in rest:
        first += number
        truth.append(first)
    truth.append(first)
    return float(all(value == right for value, right in zip(values, truth, strict=False)))


def chances(text: str) -> Mapping[str, float]:
    """The next character of an attempt at the question that the text ends with; the end for any other text."""
    asked = list(_QUESTION.finditer(text))
    again = list(_AGAIN.finditer(text))
    if not asked:
        return {END: 1.0}
    start = max(asked[-1].end(), again[-1].end() if again else 0)
    numbers = [int(number) for number in asked[-1][1].split("+")]
    *done, partial = text[start:].split("\n")
    if not all(line.isdigit() for line in done) or len(done) >= len(numbers):
        return {END: 1.0}
    value = int(done[-1]) if done else numbers[0]
    lines = _lines(value, numbers, len(done), SECOND_SLIP if again else SLIP)
    following: Counter[str] = Counter()
    for line, chance in lines.items():
        if line.startswith(partial) and line != partial:
            following[line[len(partial)]] += chance  # type: ignore[assignment]
    whole = sum(following.values())
    return {letter: chance / whole for letter, chance in following.items()} if whole else {END: 1.0}


def _lines(value: int, numbers: list[int], place: int, slip: float) -> dict[str, float]:
    """Every way in which the next line may be written."""
    if place == len(numbers) - 1:
        return {f"Answer: {value}{END}": 1.0}
    right = value + numbers[place + 1]
    wrong = {f"{right + off}\n": slip / len(OFF) for off in OFF}
    return {f"{right}\n": 1 - slip} | wrong


def _numbers(question: str) -> list[int]:
    return [int(number) for number in question.removesuffix("=\n").split("+")]
