"""Questions with lettered options, and the orders in which options are shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from random import Random
from typing import TypeAlias

LETTERS = "ABCDEFGH"

Order: TypeAlias = tuple[int, ...]
"""Which option stands at each place."""


@dataclass(frozen=True, slots=True)
class Options:
    """A stem and its options. `text` shows them in an order, `unshuffled` leads a shown letter back to its own."""

    stem: str
    options: tuple[str, ...]

    @property
    def letters(self) -> str:
        return LETTERS[: len(self.options)]

    def text(self, order: Order | None = None) -> str:
        places = order or tuple(range(len(self.options)))
        lines = [f"{letter}) {self.options[index]}" for letter, index in zip(self.letters, places, strict=True)]
        return "\n".join([self.stem, *lines])

    def unshuffled(self, letter: str | None, order: Order) -> str | None:
        """The letter of the option that was shown as `letter`."""
        if letter is None or letter not in self.letters:
            return None
        return LETTERS[order[self.letters.index(letter)]]


def orders(count: int, times: int, rng: Random) -> list[Order]:
    """`times` orders of `count` options, balanced: all of them as often as they fit, then rotations of random ones.

    In the rotations of one order every option stands at every place once; over the random orders each order is
    as likely as any other, so that what a place adds to an answer is added to every option alike.
    """
    found = list(permutations(range(count))) * (times // math.factorial(count))
    while len(found) < times:
        base = list(range(count))
        rng.shuffle(base)
        found += rotations(base)
    return found[:times]


def rotations(base: Sequence[int]) -> list[Order]:
    return [tuple(base[shift:]) + tuple(base[:shift]) for shift in range(len(base))]
