"""What a model learns to program from: the shown tests of a function, then one of its programs."""

from __future__ import annotations

from random import Random

import msgspec

from headrace.adapt.lesson import END, Lesson, Piece
from headrace.reason.tasks import programs

VERSION = 1
"""Goes up whenever the same settings and random numbers give other lessons."""

TOKENS = r"f\(|\)=|, |.|\n"
"""A token each: the parts of a test around its numbers, any other character. Digits stand alone."""


def vocabulary() -> tuple[str, ...]:
    """Every token that questions and programs can have."""
    return tuple(sorted({"f(", ")=", ", ", "\n", "x", "(", ")", *programs.SUMS, *programs.PRODUCTS, *"0123456789"}))


class ProgramLessons(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Draws lessons on functions of the training split alone. `operators` (from, to): the difficulty dial."""

    operators: tuple[int, int] = (1, 4)

    def __call__(self, rng: Random) -> Lesson:
        while True:
            puzzle = programs.draw(rng, rng.randint(*self.operators))
            if puzzle.split == "train":
                return Piece(puzzle.question, learn=False), Piece(puzzle.program + END)
