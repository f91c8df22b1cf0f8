"""Multiple choice with known answers: small sums, sequences, sizes, kinds and spelling, gold at any place or at one.

`lean` plants a position bias in a set: with that chance the right option stands first, else at a random place. A
solver that leans on the first place gains on such a set and loses on its mirror image.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from headrace.reason.answers import Choice
from headrace.reason.choices import LETTERS, Options
from headrace.reason.task import Task
from headrace.reason.tasks.posed import Posed
from headrace.reason.tasks.words import KINDS
from headrace.reason.worked import Examples
from headrace.spec.sampling import Stop

CHOICES = 4


def question(seed: int, lean: float = 0.0, tokens: int = 96, examples: Examples | None = None) -> Posed:
    """One question, the same for the same seed. `examples`: what medprompt may show."""
    family = sorted(FAMILIES)[seed % len(FAMILIES)]
    return draw(Random(f"lettered/{seed}"), family, lean, tokens, examples)


def draw(rng: Random, family: str, lean: float = 0.0, tokens: int = 96, examples: Examples | None = None) -> Posed:
    """One random question of a family."""
    stem, right, wrong = FAMILIES[family](rng)
    place = 0 if rng.random() < lean else rng.randrange(CHOICES)
    options = [*wrong[:place], right, *wrong[place:]]
    asked = Options(stem, tuple(options))
    meta = {"choices": asked} | ({} if examples is None else {"examples": examples})
    task = Task(asked.text(), Choice(asked.letters), ending=Stop(tokens=tokens), meta=meta)
    return Posed(task, LETTERS[place], family)


def _sum(rng: Random) -> tuple[str, str, list[str]]:
    a, b = rng.randint(12, 79), rng.randint(12, 79)
    near = rng.sample([-11, -10, -2, -1, 1, 2, 9, 10, 11], CHOICES - 1)
    return f"What is {a} + {b}?", str(a + b), [str(a + b + off) for off in near]


def _sequence(rng: Random) -> tuple[str, str, list[str]]:
    start, step = rng.randint(2, 30), rng.randint(3, 12)
    shown = ", ".join(str(start + step * place) for place in range(4))
    right = start + 4 * step
    near = rng.sample([-step, -2, -1, 1, 2, step], CHOICES - 1)
    return f"Which number comes next: {shown}?", str(right), [str(right + off) for off in near]


def _largest(rng: Random) -> tuple[str, str, list[str]]:
    numbers = sorted(rng.sample(range(101, 999), CHOICES))
    rest = numbers[:-1]
    rng.shuffle(rest)
    return "Which of these numbers is the largest?", str(numbers[-1]), [str(number) for number in rest]


def _kind(rng: Random) -> tuple[str, str, list[str]]:
    kinds = rng.sample(sorted(KINDS), CHOICES)
    right, *wrong = (rng.choice(KINDS[kind]) for kind in kinds)
    return f"Which of these is a {kinds[0]}?", right, wrong


def _letters(rng: Random) -> tuple[str, str, list[str]]:
    words = rng.sample(sorted(word for members in KINDS.values() for word in members), 40)
    right = words[0]
    wrong = [word for word in words[1:] if word[0] != right[0] or word[-1] != right[-1]][: CHOICES - 1]
    return f"Which word begins with {right[0]} and ends with {right[-1]}?", right, wrong


FAMILIES: dict[str, Callable[[Random], tuple[str, str, list[str]]]] = {
    "sum": _sum,
    "sequence": _sequence,
    "largest": _largest,
    "kind": _kind,
    "letters": _letters,
}
