"""Inference as blocks that each state what they do to a measure, and can be held to it exactly.

Ścibior et al., *Denotational validation of higher-order Bayesian inference* (POPL 2018): an inference algorithm is
a chain of transformers between representations of a measure – sampler, weighted, population, traced – and is right
when every transformer keeps, or changes as it says, the measure that is represented. A block's `law` is linear, so
what holds for every population holds for a chain of blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from headrace.reason import resample as resampling
from headrace.reason.choice import Choice, Sampler, distribution, runs
from headrace.reason.population import Population
from headrace.reason.resample import Method

Measure: TypeAlias = dict[Any, Any]
"""Mass by value. Not normalised: the whole mass is Z."""
Kernel: TypeAlias = Callable[[Any, Choice], Any]
"""From a value to a random value."""


class Weighted(NamedTuple):
    """A value and the factor by which drawing it counts."""

    value: Any
    weight: Any


@dataclass(frozen=True, slots=True)
class Block:
    """`run` changes a population at random; `law` says what that does to the expected measure."""

    name: str
    run: Callable[[Population, Choice], Population]
    law: Callable[[Measure], Measure]


def importance(proposal: Sampler[Any], factor: Callable[[Any], Any]) -> Sampler[Weighted]:
    """Sampler to weighted: what is drawn counts by `factor`, e.g. the target's mass over the proposal's."""

    def program(choice: Choice) -> Weighted:
        value = proposal(choice)
        return Weighted(value, factor(value))

    return program


def spawn(weighted: Sampler[Weighted], n: int) -> Sampler[Population]:
    """Weighted to population: n independent draws, each with the n-th part of its weight."""

    def program(choice: Choice) -> Population:
        drawn = [weighted(choice) for _ in range(n)]
        return Population(tuple(one.value for one in drawn), tuple(one.weight / n for one in drawn))

    return program


def reweight(factor: Callable[[Any], Any]) -> Block:
    """Multiplies each weight by its particle's factor, and so the measure's density."""

    def run(population: Population, choice: Choice) -> Population:
        return population.reweight([factor(particle) for particle in population.particles])

    return Block("reweight", run, lambda measure: {value: mass * factor(value) for value, mass in measure.items()})


def move(kernel: Kernel) -> Block:
    """Moves each particle by the kernel: it extends a sequence, or leaves the target invariant (MCMC)."""

    def run(population: Population, choice: Choice) -> Population:
        return population.map(lambda particle: kernel(particle, choice))

    return Block("move", run, lambda measure: push(measure, kernel))


def resample(method: Method = "systematic", threshold: Any = Fraction(1, 2), n: int | None = None) -> Block:
    """Draws parents by weight when the ESS is below `threshold` times the number of particles; 2 means always.

    With n = 1 it collapses a population to one weighted draw. The expected measure stays.
    """

    def run(population: Population, choice: Choice) -> Population:
        if not population.total > 0 or not population.ess() < threshold * len(population.particles):
            return population
        return population.offspring(population.ancestors(choice, method, n))

    return Block("resample", run, dict)


def expand(times: int) -> Block:
    """Each particle becomes so many copies that share its weight. The measure stays."""

    def run(population: Population, choice: Choice) -> Population:
        particles = tuple(particle for particle in population.particles for _ in range(times))
        return Population(particles, tuple(weight / times for weight in population.weights for _ in range(times)))

    return Block("expand", run, dict)


def thin(n: int) -> Block:
    """Keeps at most n of the particles, each once. The expected measure stays.

    After `expand` and a move this is the selection of SMC steering (Lew et al. 2023).
    """

    def run(population: Population, choice: Choice) -> Population:
        kept, weights = resampling.thin(population.weights, n, choice)
        return Population(tuple(population.particles[index] for index in kept), weights)

    return Block("thin", run, dict)


def run(blocks: Iterable[Block], population: Population, choice: Choice) -> Population:
    for block in blocks:
        population = block.run(population, choice)
    return population


def law(blocks: Iterable[Block], measure: Measure) -> Measure:
    """What the blocks say they do, one after the other."""
    for block in blocks:
        measure = block.law(measure)
    return measure


def push(measure: Mapping[Any, Any], kernel: Kernel) -> Measure:
    """The measure after each value has been moved by a finite kernel; exact for Fractions."""
    moved: Measure = {}
    for value, mass in measure.items():
        for probability, after in runs(partial(kernel, value)):
            moved[after] = moved.get(after, Fraction(0)) + mass * probability
    return moved


def expected(blocks: Sequence[Block], start: Mapping[Population, Fraction]) -> Measure:
    """What the blocks do: the expected measure over all runs from a distribution of populations, exactly."""
    states: Measure = dict(start)
    for block in blocks:
        states = push(states, block.run)
    return mean_measure(states)


def mean_measure(states: Mapping[Population, Fraction]) -> Measure:
    found: Measure = {}
    for population, probability in states.items():
        for value, weight in zip(population.particles, population.weights, strict=True):
            found[value] = found.get(value, Fraction(0)) + probability * weight
    return found


def measure_of(program: Sampler[Weighted]) -> Measure:
    """The exact measure of a finite weighted program."""
    found: Measure = {}
    for (value, weight), probability in distribution(program).items():
        found[value] = found.get(value, Fraction(0)) + probability * weight
    return found
