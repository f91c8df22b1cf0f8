"""ARITH: running sums and small word problems whose every step has one right form.

A question is answered a line a step, then with the answer:

    7+8-3=            Tom has 7 pens. Tom buys 8 more. Mia has 2 eggs. Tom loses 3. How many pens has Tom?
    7+8=15            7+8=15
    15-3=12           15-3=12
    Answer: 12        Answer: 12

The difficulty dial is the number of `steps` and the `largest` number that a question names. Every question
belongs to one split, by its hash: `train` for models, `tune` for heads and calibration, `eval` for results.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Literal, TypeAlias, get_args

from headrace.spec.errors import InvalidRequest

Family: TypeAlias = Literal["sums", "words"]
Split: TypeAlias = Literal["train", "tune", "eval"]
Operation: TypeAlias = tuple[str, int]
"""+, - or * and the number that follows it."""

MOST_STEPS, MOST_VALUE = 12, 99
DIALS: dict[Family, tuple[int, int]] = {"sums": (6, 10), "words": (5, 9)}
"""Steps and largest number at which lm-t-small is right about two times in five; it learned from numbers up to 9."""
ANSWER = "Answer: "
CHECK = "Right? "
"""Asked on a line of its own after any step; the model answers with one of VERDICTS."""
VERDICTS = ("yes", "no")

PEOPLE = ("Tom", "Mia", "Ben", "Ada", "Leo", "Eva")
THINGS = ("pens", "eggs", "cards", "books", "coins", "shells")
START = "{a} has {n} {things}."
EVENTS = {
    "+": (" {a} buys {n} more.", " {a} finds {n}.", " {b} gives {a} {n}."),
    "-": (" {a} sells {n}.", " {a} loses {n}.", " {a} gives {b} {n}."),
    "*": (" Then {a} has {n} times as many.",),
}
ASIDE = " {b} has {n} {others}."
"""Says nothing about what is asked."""
END = " How many {things} has {a}?\n"
ASIDES = 0.25
"""Chance of an aside before each event."""

_ANSWER = re.compile(r"Answer: (-?[0-9]+)")


@dataclass(frozen=True)
class Problem:
    """`question` ends with a line break; `start` and `operations` are what it says."""

    family: Family
    question: str
    start: int
    operations: tuple[Operation, ...]

    @cached_property
    def states(self) -> tuple[int, ...]:
        """The value at the start and after each step."""
        values = [self.start]
        for operation in self.operations:
            values.append(apply(values[-1], operation))
        return tuple(values)

    @property
    def answer(self) -> int:
        return self.states[-1]

    @cached_property
    def lines(self) -> tuple[str, ...]:
        """The right lines: one a step, then the answer."""
        steps = zip(self.states, self.operations, self.states[1:], strict=False)
        return (*(line(before, operation, after) for before, operation, after in steps), f"{ANSWER}{self.answer}")

    @property
    def split(self) -> Split:
        return split_of(self.question)


def apply(value: int, operation: Operation) -> int:
    sign, number = operation
    return value + number if sign == "+" else value - number if sign == "-" else value * number


def line(before: int, operation: Operation, after: int) -> str:
    """A step as it is written, right or wrong."""
    return f"{before}{operation[0]}{operation[1]}={after}"


def split_of(question: str) -> Split:
    """`eval` and `tune` get one question in sixteen each."""
    share = hashlib.sha256(question.encode()).digest()[0] % 16
    return "eval" if share == 0 else "tune" if share == 1 else "train"


def answer_of(text: str) -> int | None:
    """The last marked answer in a text; None where there is none."""
    found = _ANSWER.findall(text)
    return int(found[-1]) if found else None


def marks(problem: Problem, text: str) -> tuple[bool, ...]:
    """For each line of a solution: whether it and every line before it are the right ones."""
    written = text.split("\n")[: -1 if text.endswith("\n") else None] if text else []
    good, found = True, []
    for number, got in enumerate(written):
        good = good and number < len(problem.lines) and got == problem.lines[number]
        found.append(good)
    return tuple(found)


def problems(
    family: Family, steps: int, count: int, seed: int = 0, split: Split = "eval", largest: int = 9
) -> list[Problem]:
    """`count` distinct questions of one split, the same for the same arguments.

    Raises InvalidRequest for settings out of range, or where there are not so many questions.
    """
    rng = Random(f"{family} {steps} {largest} {seed}")
    found: dict[str, Problem] = {}
    for _ in range(200 * count + 1000):
        if len(found) == count:
            return list(found.values())
        problem = draw(rng, family, steps, largest)
        if problem.split == split:
            found.setdefault(problem.question, problem)
    raise InvalidRequest(
        f"There are not {count} questions of {steps} steps up to {largest} in split {split!r}; ask for fewer.", "count"
    )


def draw(rng: Random, family: Family, steps: int, largest: int = 9) -> Problem:
    """One random question of any split. Raises InvalidRequest for settings out of range."""
    if family not in get_args(Family):
        raise InvalidRequest(f"Family {family!r} is unknown; give one of {', '.join(get_args(Family))}.", "family")
    if not 1 <= steps <= MOST_STEPS:
        raise InvalidRequest(f"steps is {steps}; give 1 to {MOST_STEPS}.", "steps")
    if not 1 <= largest <= MOST_VALUE // 2:
        raise InvalidRequest(f"largest is {largest}; give 1 to {MOST_VALUE // 2}.", "largest")
    start = rng.randint(1, largest)
    operations = tuple(_operations(rng, start, steps, largest, "+-" if family == "sums" else "+-+-*"))
    write = _sum_question if family == "sums" else _word_question
    return Problem(family, write(rng, start, operations, largest), start, operations)


def _operations(rng: Random, value: int, steps: int, largest: int, signs: str) -> Iterator[Operation]:
    """Every value on the way stays between 0 and MOST_VALUE."""
    for _ in range(steps):
        most = {
            "+": min(largest, MOST_VALUE - value),
            "-": min(largest, value),
            "*": min(9, MOST_VALUE // max(value, 1)),
        }
        least = {"+": 1, "-": 1, "*": 2}
        sign = rng.choice([sign for sign in signs if most[sign] >= least[sign]])
        operation = (sign, rng.randint(least[sign], most[sign]))
        value = apply(value, operation)
        yield operation


def _sum_question(rng: Random, start: int, operations: tuple[Operation, ...], largest: int) -> str:
    return f"{start}{''.join(f'{sign}{number}' for sign, number in operations)}=\n"


def _word_question(rng: Random, start: int, operations: tuple[Operation, ...], largest: int) -> str:
    a, b = rng.sample(PEOPLE, 2)
    things, others = rng.sample(THINGS, 2)
    text = START.format(a=a, n=start, things=things)
    for sign, number in operations:
        if rng.random() < ASIDES:
            text += ASIDE.format(b=b, n=rng.randint(1, largest), others=others)
        text += rng.choice(EVENTS[sign]).format(a=a, b=b, n=number)
    return text + END.format(a=a, things=things)
