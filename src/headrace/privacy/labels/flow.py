"""Labels: how secret a thing is and how far it may be trusted, and the values that carry one.

Integrity as in Biba, Integrity considerations for secure computer systems, 1977: information flows to what is more
secret or less trusted, never back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Generic, NamedTuple, TypeVar

from headrace.privacy.labels.lattice import Lattice
from headrace.spec.errors import HeadraceError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class FlowRefused(HeadraceError):
    """A label forbids this flow. The message says nothing that its reader may not know."""


class FlowLabel(NamedTuple):
    """An element of each of the two lattices; what they mean is the FlowLattice's to say."""

    confidentiality: Any
    integrity: Any


@dataclass(frozen=True, slots=True, repr=False)
class Labelled(Generic[T_co]):
    """A value and its label. Its `repr` shows the label alone, so that no traceback or log prints the value."""

    value: T_co
    label: FlowLabel

    def __repr__(self) -> str:
        return f"Labelled({self.label})"


@dataclass(frozen=True)
class FlowLattice(Lattice[FlowLabel]):
    """Confidentiality x integrity. `leq(a, b)`: b is at least as secret and at most as trusted, so a may flow to b."""

    confidentiality: Lattice
    integrity: Lattice

    @property
    def bottom(self) -> FlowLabel:
        return FlowLabel(self.confidentiality.bottom, self.integrity.top)

    @property
    def top(self) -> FlowLabel:
        return FlowLabel(self.confidentiality.top, self.integrity.bottom)

    def join(self, a: FlowLabel, b: FlowLabel) -> FlowLabel:
        return FlowLabel(self.confidentiality.join(a[0], b[0]), self.integrity.meet(a[1], b[1]))

    def meet(self, a: FlowLabel, b: FlowLabel) -> FlowLabel:
        return FlowLabel(self.confidentiality.meet(a[0], b[0]), self.integrity.join(a[1], b[1]))

    def elements(self) -> Iterator[FlowLabel]:
        for pair in product(self.confidentiality.elements(), self.integrity.elements()):
            yield FlowLabel(*pair)

    def has(self, element: Any) -> bool:
        fits = isinstance(element, FlowLabel)
        return fits and self.confidentiality.has(element[0]) and self.integrity.has(element[1])

    def text(self, element: FlowLabel) -> str:
        return f"{self.confidentiality.text(element[0])}|{self.integrity.text(element[1])}"

    def combine(self, function: Callable[..., T], *parts: Labelled[Any]) -> Labelled[T]:
        """`function` of the values, labelled with the join of all their labels: a prompt, a summary, a count."""
        label = self.join_all(part.label for part in parts)
        return Labelled(function(*(part.value for part in parts)), label)
