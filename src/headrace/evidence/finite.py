"""Finite programs on which inference can be checked exactly: a small policy, a split and merge, wrong resamplers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import product
from random import Random
from typing import Any, TypeAlias

from headrace.reason.blocks import Block, Kernel, Measure, Weighted, measure_of
from headrace.reason.choice import Choice, distribution, draw
from headrace.reason.green import Proposal, metropolis_hastings
from headrace.reason.population import Population
from headrace.reason.smc import Progress, Target

Tokens: TypeAlias = tuple[int, ...]
END = 0


@dataclass(frozen=True)
class Policy:
    """A Markov chain over `symbols` tokens, of which END ends a sequence; at `longest` tokens it ends as well.

    `number` is the kind of its probabilities and scores: Fraction to enumerate, float to simulate.
    """

    symbols: int = 4
    longest: int = 5
    number: Callable[[Fraction], Any] = Fraction

    def finished(self, tokens: Tokens) -> bool:
        return len(tokens) == self.longest or (len(tokens) > 0 and tokens[-1] == END)

    def shares(self, last: int) -> list[Any]:
        """The next token's distribution after `last`."""
        weights = [1 + (3 * last + 5 * token + last * token) % 7 for token in range(self.symbols)]
        return [self.number(Fraction(weight, sum(weights))) for weight in weights]

    def extend(self, tokens: Tokens, choice: Choice) -> Tokens:
        return (*tokens, draw(choice, self.shares(tokens[-1] if tokens else END)))

    def score(self, tokens: Tokens) -> Any:
        """A reward between 1/20 and 19/20 for any prefix; 1 for none. It rises and falls along a path."""
        mixed = sum((place + 2) * (token + 1) ** 2 for place, token in enumerate(tokens))
        return self.number(Fraction(1 + 3 * (mixed % 7), 20)) if tokens else self.number(Fraction(1))

    def target(self, kind: Target) -> Measure:
        """p(y) r(y), or p(y) times the scores of all its prefixes, by enumerating every sequence."""

        def factor(tokens: Tokens) -> Any:
            if kind == "outcome":
                return self.score(tokens)
            whole = self.number(Fraction(1))
            for length in range(len(tokens)):
                whole *= self.score(tokens[: length + 1])
            return whole

        return {tokens: probability * factor(tokens) for tokens, probability in distribution(self.whole).items()}

    def whole(self, choice: Choice) -> Tokens:
        """One sequence to its end."""
        tokens: Tokens = ()
        while not self.finished(tokens):
            tokens = self.extend(tokens, choice)
        return tokens

    def start(self, n: int) -> Population[Progress]:
        return Population.even([Progress((), ())] * n, self.number(Fraction(1)))


def only_now(measure: Measure) -> Measure:
    """The measure of where particles are, whatever their latest step was."""
    found: Measure = {}
    for progress, mass in measure.items():
        found[progress.now] = found.get(progress.now, 0) + mass
    return found


def total_variation(one: Measure, other: Measure) -> float:
    """Between the two measures' normalised forms."""
    whole, rest = sum(one.values()), sum(other.values())
    apart = sum(abs(one.get(value, 0) / whole - other.get(value, 0) / rest) for value in {*one, *other})
    return float(apart / 2)


def populations(count: int, largest: int, seed: int = 0) -> list[Population[str]]:
    """Random ones with rational weights, some of them zero, some particles the same."""
    rng, found = Random(seed), []
    for _ in range(count):
        size = rng.randint(1, largest)
        weights = [Fraction(rng.randint(0, 6), rng.randint(1, 9)) for _ in range(size)]
        weights[rng.randrange(size)] += Fraction(1, rng.randint(1, 5))
        found.append(Population(tuple(rng.choices("abcd", k=size)), tuple(weights)))
    return found


GRID = 8
"""The split and merge live on [0, 1] in steps of 1/GRID."""
State: TypeAlias = tuple[Fraction, ...]


def lattice() -> list[State]:
    """One point, or two ordered points whose middle lies on the grid as well."""
    inner = [Fraction(place, GRID) for place in range(1, GRID)]
    pairs = [(low, high) for low, high in product(inner, inner) if low < high and ((high - low) * GRID) % 2 == 0]
    return [*((point,) for point in inner), *pairs]


def density(state: State) -> Fraction:
    """An unnormalised posterior density in one or two dimensions, different at every point."""
    if len(state) == 1:
        return 1 + 3 * state[0] ** 2
    return 2 + state[0] * (1 - state[1])


def mass(state: State) -> Fraction:
    """Density times the volume of the state's cell; of the pairs only every second grid point is reached."""
    cell = Fraction(1, GRID)
    return density(state) * (cell if len(state) == 1 else 2 * cell * cell)


def split_or_merge(jacobian: int = 2) -> Kernel:
    """m and u become (m - u, m + u) and back; the map stretches areas by 2. Another `jacobian` is a mutant.

    A point with no room to split stays where it is, by a proposal that is its own reverse.
    """

    def spread(middle: Fraction) -> list[Fraction]:
        room = int(min(middle, 1 - middle) * GRID)
        return [Fraction(step, GRID) for step in range(1, room)]

    def propose(state: State, choice: Choice) -> Proposal:
        middle = sum(state, Fraction(0)) / len(state)
        steps = spread(middle)
        if not steps:
            return Proposal(state, 1, 1)
        even = Fraction(1, len(steps))
        if len(state) == 2:
            return Proposal((middle,), 1, even * GRID, Fraction(1, jacobian))
        u = steps[draw(choice, [even] * len(steps))]
        return Proposal((middle - u, middle + u), even * GRID, 1, jacobian)

    return metropolis_hastings(density, propose)


def broken_pairs(kernel: Kernel, masses: Measure) -> int:
    """How many pairs of states violate detailed balance: mass(x) K(x, y) = mass(y) K(y, x)."""
    rows = {state: distribution(partial(kernel, state)) for state in masses}
    pairs = {frozenset((x, y)) for x, row in rows.items() for y in row if x != y}
    flow = [[masses[x] * rows[x].get(y, 0) for x, y in ((a, b), (b, a))] for a, b in map(tuple, pairs)]
    return sum(there != back for there, back in flow)


def coins(choice: Choice) -> tuple[int, ...]:
    """A program that draws how many coins there are before it throws them: its traces differ in length."""
    bias = Fraction(1 + draw(choice, [Fraction(1, 2), Fraction(1, 2)]), 3)
    count = 1 + draw(choice, [Fraction(1, 2), Fraction(1, 3), Fraction(1, 6)])
    return tuple(draw(choice, [bias, 1 - bias]) for _ in range(count))


def liked(throws: Sequence[int]) -> Fraction:
    """A likelihood for `coins`."""
    return Fraction(1 + 2 * sum(throws), 2 + len(throws))


def guess(choice: Choice) -> Weighted:
    """A weighted program: a proposal that is not the target, with the target's mass over its own."""
    target, proposal = [Fraction(n, 10) for n in (1, 2, 3, 4)], [Fraction(n, 16) for n in (7, 4, 3, 2)]
    value = draw(choice, proposal)
    return Weighted("abcd"[value], target[value] / proposal[value])


def guess_measure() -> Measure:
    return measure_of(guess)


def _wrong(name: str, after: Callable[[Population, Choice], Population]) -> Block:
    return Block(name, after, dict)


def keeps_weights(population: Population, choice: Choice) -> Population:
    """Draws offspring by weight and then lets each keep its parent's weight: heavy particles count twice."""
    parents = population.ancestors(choice, "multinomial")
    return Population(*(tuple(kind[p] for p in parents) for kind in (population.particles, population.weights)))


def keeps_the_best(population: Population, choice: Choice) -> Population:
    """The heavier half, twice."""
    order = sorted(range(len(population.weights)), key=lambda index: population.weights[index], reverse=True)
    size = len(order)
    return population.offspring([order[place // 2] for place in range(size)])


def without_a_draw(population: Population, choice: Choice) -> Population:
    """Systematic with the offset always in the middle of its stratum."""

    class Middle:
        def uniform(self, cuts: Sequence[Any]) -> Fraction:
            return Fraction(1, 2)

    return population.offspring(population.ancestors(Middle(), "systematic"))


WRONG = (
    _wrong("offspring keep their parents' weights", keeps_weights),
    _wrong("the heavier half is kept twice", keeps_the_best),
    _wrong("the offset is no draw", without_a_draw),
)
