"""Metropolis-Hastings-Green moves, also between spaces of different dimension, and traces to make them on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, Generic, NamedTuple, TypeVar

from headrace.reason.blocks import Kernel
from headrace.reason.choice import Choice, Sampler, draw

A = TypeVar("A")


class Proposal(NamedTuple):
    """A proposed value, the densities of proposing it and of its reverse, and |∂(after)/∂(before)| of the map."""

    value: Any
    forward: Any
    backward: Any
    jacobian: Any = 1


def acceptance(forward: Any, backward: Any) -> Any:
    """min(1, backward / forward), each the target's density times the proposal's; backward with the Jacobian.

    Green 1995, equation 7. A state without mass is left at once.
    """
    if not forward > 0 or backward >= forward:
        return 1
    return backward / forward


def metropolis_hastings(density: Callable[[A], Any], propose: Callable[[A, Choice], Proposal]) -> Kernel:
    """A kernel that leaves the target invariant; its density need not be normalised.

    Every proposal must have a reverse that undoes it, drawn with the density it names as `backward`.
    """

    def kernel(value: A, choice: Choice) -> A:
        proposal = propose(value, choice)
        forward = density(value) * proposal.forward
        rate = acceptance(forward, density(proposal.value) * proposal.backward * proposal.jacobian)
        return proposal.value if draw(choice, (rate, 1 - rate)) == 0 else value

    return kernel


class Traced(NamedTuple, Generic[A]):
    """What a program returned and the uniforms it drew on the way."""

    value: A
    uniforms: tuple[Any, ...]


class _Recorded:
    """Repeats the given uniforms, then draws fresh ones; keeps all."""

    def __init__(self, replay: Sequence[Any], fresh: Choice) -> None:
        self._replay, self._fresh = replay, fresh
        self.uniforms: list[Any] = []

    def uniform(self, cuts: Sequence[Any]) -> Any:
        place = len(self.uniforms)
        self.uniforms.append(self._replay[place] if place < len(self._replay) else self._fresh.uniform(cuts))
        return self.uniforms[-1]


def traced(program: Sampler[A], replay: Sequence[Any] = ()) -> Sampler[Traced[A]]:
    """Sampler to traced: the same distribution of values, with its draws; the first ones repeat `replay`."""

    def run(choice: Choice) -> Traced[A]:
        recorded = _Recorded(replay, choice)
        value = program(recorded)
        return Traced(value, tuple(recorded.uniforms))

    return run


def regenerate(program: Sampler[A], factor: Callable[[A], Any]) -> Kernel:
    """Traced to traced: draws one place of the trace and all later ones anew (Wingate et al. 2011).

    Leaves the program's distribution times `factor` invariant although traces differ in length: the prior of
    the new draws is also their proposal and cancels, what is left is the choice of the place.
    """

    def propose(old: Traced[A], choice: Choice) -> Proposal:
        length = len(old.uniforms)
        if not length:
            return Proposal(old, 1, 1)
        place = draw(choice, [Fraction(1, length)] * length)
        new = traced(program, old.uniforms[:place])(choice)
        return Proposal(new, Fraction(1, length), Fraction(1, len(new.uniforms)))

    return metropolis_hastings(lambda trace: factor(trace.value), propose)
