"""Finite lattices of security classes: levels, category sets, and their products.

Denning, A lattice model of secure information flow, CACM 19(5), 1976.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import combinations, product
from typing import Any, Generic, TypeVar

from headrace.spec.errors import InvalidRequest

E = TypeVar("E")


class Lattice(ABC, Generic[E]):
    """A finite order in which any two elements have a least upper bound (join) and a greatest lower one (meet)."""

    @property
    @abstractmethod
    def bottom(self) -> E: ...

    @property
    @abstractmethod
    def top(self) -> E: ...

    @abstractmethod
    def join(self, a: E, b: E) -> E: ...

    @abstractmethod
    def meet(self, a: E, b: E) -> E: ...

    @abstractmethod
    def elements(self) -> Iterator[E]: ...

    @abstractmethod
    def has(self, element: Any) -> bool: ...

    @abstractmethod
    def text(self, element: E) -> str:
        """A name that no other element of this lattice has."""

    def leq(self, a: E, b: E) -> bool:
        return self.join(a, b) == b

    def join_all(self, elements: Iterable[E]) -> E:
        return reduce(self.join, elements, self.bottom)

    def check(self, element: Any) -> E:
        """Raises InvalidRequest for what is no element."""
        if not self.has(element):
            raise InvalidRequest(f"{element!r} is not in this lattice; give one of its elements.", "label")
        return element


@dataclass(frozen=True)
class Levels(Lattice[str]):
    """A chain, lowest level first."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_names(self.names)
        if not self.names:
            raise InvalidRequest("A chain of levels is empty; give at least one level.", "levels")

    @property
    def bottom(self) -> str:
        return self.names[0]

    @property
    def top(self) -> str:
        return self.names[-1]

    def join(self, a: str, b: str) -> str:
        return max(a, b, key=self.names.index)

    def meet(self, a: str, b: str) -> str:
        return min(a, b, key=self.names.index)

    def elements(self) -> Iterator[str]:
        return iter(self.names)

    def has(self, element: Any) -> bool:
        return isinstance(element, str) and element in self.names

    def text(self, element: str) -> str:
        return element


@dataclass(frozen=True)
class Categories(Lattice[frozenset[str]]):
    """All sets of categories, ordered by inclusion."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_names(self.names)

    @property
    def bottom(self) -> frozenset[str]:
        return frozenset()

    @property
    def top(self) -> frozenset[str]:
        return frozenset(self.names)

    def join(self, a: frozenset[str], b: frozenset[str]) -> frozenset[str]:
        return a | b

    def meet(self, a: frozenset[str], b: frozenset[str]) -> frozenset[str]:
        return a & b

    def elements(self) -> Iterator[frozenset[str]]:
        for count in range(len(self.names) + 1):
            yield from map(frozenset, combinations(self.names, count))

    def has(self, element: Any) -> bool:
        return isinstance(element, frozenset) and element <= self.top

    def text(self, element: frozenset[str]) -> str:
        return "{" + ",".join(sorted(element)) + "}"


@dataclass(frozen=True)
class Product(Lattice[tuple]):
    """Tuples with one element of each part, ordered part by part."""

    parts: tuple[Lattice, ...]

    @property
    def bottom(self) -> tuple:
        return tuple(part.bottom for part in self.parts)

    @property
    def top(self) -> tuple:
        return tuple(part.top for part in self.parts)

    def join(self, a: tuple, b: tuple) -> tuple:
        return tuple(part.join(x, y) for part, x, y in zip(self.parts, a, b, strict=True))

    def meet(self, a: tuple, b: tuple) -> tuple:
        return tuple(part.meet(x, y) for part, x, y in zip(self.parts, a, b, strict=True))

    def elements(self) -> Iterator[tuple]:
        return product(*(part.elements() for part in self.parts))

    def has(self, element: Any) -> bool:
        fits = isinstance(element, tuple) and len(element) == len(self.parts)
        return fits and all(part.has(x) for part, x in zip(self.parts, element, strict=True))

    def text(self, element: tuple) -> str:
        return "/".join(part.text(x) for part, x in zip(self.parts, element, strict=True))


def _check_names(names: tuple[str, ...]) -> None:
    """Names without the marks that `text` sets between them, each once."""
    for name in names:
        if not re.fullmatch(r"[\w.:@ -]+", name):
            raise InvalidRequest(f"{name!r} cannot name a level or category; use letters, digits and . : @ _ -.")
    if len(set(names)) < len(names):
        raise InvalidRequest(f"{', '.join(names)} has a name twice; give each level or category once.")
