"""Arguments about small quantities, sound or with one planted fault: a missing or a false premise, a wrong step."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal, TypeAlias, get_args

from headrace.reason.answers import Number
from headrace.reason.task import Task
from headrace.reason.tasks.posed import Posed
from headrace.spec.sampling import Stop

Fault: TypeAlias = Literal["none", "missing", "false", "step"]
FAULTS = get_args(Fault)[1:]

NAMES = ("Tom", "Mia", "Ben", "Lea", "Max", "Eva")
THINGS = ("apples", "books", "coins", "shells", "cards", "stamps")

ASKED = "\nWrite one short calculation a line. End with 'Answer: ' and the number."


@dataclass(frozen=True, slots=True)
class Argument:
    """`text`: premises and steps without the final answer, with `fault` planted in it."""

    posed: Posed
    text: str
    fault: Fault


def argument(seed: int, fault: Fault = "none", tokens: int = 128) -> Argument:
    """The same question for the same seed, whatever the fault."""
    rng = Random(f"argument/{seed}")
    name, other = rng.sample(NAMES, 2)
    thing = rng.choice(THINGS)
    start, gain, times = rng.randint(5, 30), rng.randint(3, 20), rng.randint(2, 4)
    given = [
        f"{name} has {start} {thing}.",
        f"{name} finds {gain} more {thing}.",
        f"{other} has {times} times as many {thing} as {name} has then.",
    ]
    question = " ".join(given) + f" How many {thing} does {other} have?"
    task = Task(question + ASKED, Number(), ending=Stop(tokens=tokens))
    posed = Posed(task, str((start + gain) * times), "argument")
    return Argument(posed, _written(rng, given, start, gain, times, fault), fault)


def _written(rng: Random, given: list[str], start: int, gain: int, times: int, fault: Fault) -> str:
    premises, total = list(given), start + gain
    off = rng.choice([-7, -5, -4, 4, 5, 7])
    gone = rng.randrange(len(given))
    if fault == "missing":
        del premises[gone]
    elif fault == "false":
        right = str((start, gain, times)[gone])
        premises[gone] = premises[gone].replace(right, str(int(right) + abs(off)), 1)
    if fault == "step":
        total += off
    steps = [f"Add the first two numbers: {start} + {gain} = {total}.", f"Multiply by {times}: {total} times {times}."]
    lines = [f"Premise: {text}" for text in premises] + [f"Step: {text}" for text in steps]
    return "\n".join(lines)
