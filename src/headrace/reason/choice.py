"""Randomness as an argument: one program runs on floats, on given uniforms, or over all its choices exactly."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import accumulate, pairwise
from random import Random
from typing import Any, Protocol, TypeAlias, TypeVar

from headrace.spec.errors import InvalidRequest

A = TypeVar("A")


class Choice(Protocol):
    """Where a program takes its random choices from."""

    def uniform(self, cuts: Sequence[Any]) -> Any:
        """A draw from U[0, 1), of which only the piece between two neighbouring `cuts` may matter.

        What the caller makes of the draw has to be constant within a piece; that is why a continuous draw can
        be enumerated exactly. Cuts outside (0, 1) and repeated cuts do no harm.
        """


Sampler: TypeAlias = Callable[[Choice], A]
"""A program that draws from a Choice and returns a value: a probability distribution."""


def draw(choice: Choice, shares: Sequence[Any]) -> int:
    """An index drawn with these probabilities, which sum to 1; one of probability 0 is never drawn."""
    last = max(index for index, share in enumerate(shares) if share > 0)
    cuts = list(accumulate(shares[:last]))
    return bisect_right(cuts, choice.uniform(cuts))


class Seeded:
    """Floats from a seeded stream."""

    def __init__(self, seed: int | str) -> None:
        self._random = Random(seed)

    def uniform(self, cuts: Sequence[Any]) -> float:
        return self._random.random()


class Given:
    """Uniforms that the caller drew beforehand, in order. Raises InvalidRequest when they are used up."""

    def __init__(self, uniforms: Iterable[float]) -> None:
        self._uniforms = iter(uniforms)

    def uniform(self, cuts: Sequence[Any]) -> float:
        for value in self._uniforms:
            return float(value)
        raise InvalidRequest("The uniforms are used up; give one for each particle.", "uniforms")


class _Scripted:
    """Takes the pieces that a script names, then first pieces; remembers how many there were to choose from."""

    def __init__(self, script: Sequence[int]) -> None:
        self.taken = list(script)
        self.counts: list[int] = []
        self.probability = Fraction(1)

    def uniform(self, cuts: Sequence[Any]) -> Fraction:
        inner = sorted({cut for cut in cuts if 0 < cut < 1})
        pieces = list(pairwise([Fraction(0), *inner, Fraction(1)]))
        place = len(self.counts)
        self.counts.append(len(pieces))
        if place == len(self.taken):
            self.taken.append(0)
        low, high = pieces[self.taken[place]]
        self.probability *= high - low
        return (low + high) / 2

    def following(self) -> list[int] | None:
        """The script of the next run in lexicographic order; None after the last."""
        taken = list(self.taken)
        while taken and taken[-1] + 1 == self.counts[len(taken) - 1]:
            taken.pop()
        return [*taken[:-1], taken[-1] + 1] if taken else None


def runs(program: Sampler[A]) -> Iterator[tuple[Fraction, A]]:
    """Every run of a finite program with its exact probability, by replay from the start."""
    script: list[int] | None = []
    while script is not None:
        choice = _Scripted(script)
        value = program(choice)
        yield choice.probability, value
        script = choice.following()


def distribution(program: Sampler[A]) -> dict[A, Fraction]:
    """The exact distribution of a finite program whose values are hashable."""
    found: dict[A, Fraction] = {}
    for probability, value in runs(program):
        found[value] = found.get(value, Fraction(0)) + probability
    return found
