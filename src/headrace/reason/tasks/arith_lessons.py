"""What a model learns ARITH from: solutions with planted mistakes, and questions whether a solution is right so far."""

from __future__ import annotations

import re
from random import Random

import msgspec

from headrace.adapt.lesson import END, Lesson, Piece
from headrace.reason.tasks import arith
from headrace.reason.tasks.arith import ANSWER, CHECK, VERDICTS, Problem, apply, line

VERSION = 1
"""Goes up whenever the same settings and random numbers give other lessons."""

TOKENS = r"Answer: |Right\? | ?[A-Za-z]+|.|\n"
"""A token each: the two marks, a word with the space before it, any other character. Digits stand alone."""


def vocabulary() -> tuple[str, ...]:
    """Every token that questions and solutions can have."""
    templates = [arith.START, arith.ASIDE, arith.END, *(text for texts in arith.EVENTS.values() for text in texts)]
    names = [space + name for name in (*arith.PEOPLE, *arith.THINGS) for space in ("", " ")]
    words = re.sub(r"\{[a-z]+\}", "", "|".join(templates))
    written = [ANSWER, CHECK, *VERDICTS, *names, *"0123456789+-*=. ?\n", *re.findall(TOKENS, words)]
    return tuple(sorted(set(written) - {"|"}))


class ArithLessons(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Draws lessons on questions of the training split alone.

    `words`: share of word problems. `steps` (from, to) and `largest` (one of them): the difficulty dial.
    `mistake`: chance that a step's result is planted wrong, with which the solution then goes on: without it
    there would be little for a search to find. `check`: share of solutions that are cut after a random line
    and followed by the question whether they are right so far.
    """

    words: float = 0.5
    steps: tuple[int, int] = (1, 6)
    largest: tuple[int, ...] = (9,)
    mistake: float = 0.08
    check: float = 0.25

    def __call__(self, rng: Random) -> Lesson:
        problem = self._problem(rng)
        lines, right = self._solve(rng, problem)
        text = Piece(problem.question, learn=False)
        if rng.random() >= self.check:
            return text, Piece("\n".join(lines) + END)
        cut = rng.randint(1, len(lines))
        verdict = Piece(VERDICTS[0] if all(right[:cut]) else VERDICTS[1])
        if cut < len(lines):
            return text, Piece("\n".join(lines[:cut]) + "\n"), Piece(CHECK, learn=False), verdict
        return text, Piece("\n".join(lines)), Piece(rng.choice((END, "")) + "\n" + CHECK, learn=False), verdict

    def _problem(self, rng: Random) -> Problem:
        while True:
            family: arith.Family = "words" if rng.random() < self.words else "sums"
            problem = arith.draw(rng, family, rng.randint(*self.steps), rng.choice(self.largest))
            if problem.split == "train":
                return problem

    def _solve(self, rng: Random, problem: Problem) -> tuple[list[str], list[bool]]:
        """The lines of a solution, and which of them follow from the line before without a mistake."""
        value, lines, right = problem.start, [], []
        for operation in problem.operations:
            after = apply(value, operation)
            planted = rng.random() < self.mistake
            if planted:
                after = _mistaken(rng, after)
            lines.append(line(value, operation, after))
            right.append(not planted)
            value = after
        return [*lines, f"{ANSWER}{value}"], [*right, True]


def _mistaken(rng: Random, after: int) -> int:
    """A carry forgotten or taken twice, or one too many or too few."""
    return after + rng.choice((-10, -1, 1, 10))
