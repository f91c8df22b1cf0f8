"""Weighted particles as plain immutable state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from headrace.reason import resample
from headrace.reason.choice import Choice
from headrace.reason.lognumber import LogNumber, log_of
from headrace.reason.resample import Method, shares_of

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Population(Generic[A]):
    """Particles x_i with weights w_i stand for the measure that gives each x_i the mass w_i.

    Weights are numbers of any one kind: LogNumber in a search, Fraction in a proof. They are never normalised:
    their sum is the estimate of the normalising constant Z, unbiased after any of the steps below. Where books
    reset weights to 1 and carry log Z beside them, here each offspring gets the mean weight.
    """

    particles: tuple[A, ...]
    weights: tuple[Any, ...]

    @staticmethod
    def even(particles: Iterable[A], total: Any = LogNumber(0.0)) -> Population[A]:
        """Particles that share `total` evenly."""
        members = tuple(particles)
        return Population(members, (total / len(members),) * len(members))

    @property
    def total(self) -> Any:
        """The estimate of Z."""
        return sum(self.weights)

    @property
    def log_evidence(self) -> float:
        """log of the estimate of Z; -inf when no particle has weight."""
        return log_of(self.total)

    def shares(self) -> list[Any]:
        """Weights over their sum. Raises InvalidRequest when none is positive."""
        return shares_of(self.weights)

    def ess(self) -> Any:
        """The effective sample size (Σw)² / Σw², from 1 to the number of particles; 0 without weight."""
        return 1 / sum(share * share for share in self.shares()) if self.total > 0 else 0

    def reweight(self, factors: Sequence[Any]) -> Population[A]:
        """Multiplies each weight by its factor; a finished particle's factor is 1."""
        return Population(self.particles, tuple(w * f for w, f in zip(self.weights, factors, strict=True)))

    def map(self, change: Callable[[A], B]) -> Population[B]:
        """Every particle replaced by what it becomes; weights stay."""
        return Population(tuple(map(change, self.particles)), self.weights)

    def ancestors(self, choice: Choice, method: Method = "systematic", n: int | None = None) -> tuple[int, ...]:
        """The indices of n parents (as many as there are particles) by `resample.ancestors`."""
        return resample.ancestors(self.weights, n or len(self.weights), choice, method)

    def offspring(self, parents: Sequence[int]) -> Population[A]:
        """The parents' copies, which share the whole weight evenly."""
        return Population.even((self.particles[parent] for parent in parents), self.total)
