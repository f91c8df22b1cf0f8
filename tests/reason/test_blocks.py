"""Every block does to the expected measure what its law says, exactly; blocks that do not are caught."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.evidence.finite import WRONG, guess, guess_measure, populations
from headrace.reason import blocks
from headrace.reason.blocks import Block, expected, importance, law, mean_measure, measure_of, spawn
from headrace.reason.choice import Choice, distribution, draw
from headrace.reason.population import Population
from headrace.reason.resample import METHODS

THIRD = Fraction(1, 3)
fractions = st.fractions(0, 4, max_denominator=8)
population_of = st.lists(st.tuples(st.sampled_from("abc"), fractions), min_size=1, max_size=4).filter(
    lambda pairs: any(weight for _, weight in pairs)
)


def walk(letter: str, choice: Choice) -> str:
    return "abc"[("abc".index(letter) + draw(choice, (THIRD, 2 * THIRD))) % 3]


def odds(letter: str) -> Fraction:
    return {"a": Fraction(1, 7), "b": Fraction(0), "c": Fraction(5, 2)}[letter]


RIGHT: list[Block] = [
    blocks.reweight(odds),
    blocks.move(walk),
    *(blocks.resample(method, 2) for method in METHODS),
    *(blocks.resample(method) for method in METHODS),
    blocks.resample("multinomial", 2, n=1),
    blocks.expand(3),
    blocks.thin(2),
]


def keeps_its_law(block: Block, population: Population) -> bool:
    sure = {population: Fraction(1)}
    got, said = expected([block], sure), law([block], mean_measure(sure))
    return all(got.get(value, 0) == said.get(value, 0) for value in {*got, *said})


@pytest.mark.parametrize("block", RIGHT, ids=lambda block: block.name)
@given(pairs=population_of)
@settings(max_examples=30)
def test_every_block_keeps_its_law(block: Block, pairs: list[tuple[str, Fraction]]) -> None:
    assert keeps_its_law(block, Population(*map(tuple, zip(*pairs, strict=True))))


@pytest.mark.parametrize("block", WRONG, ids=lambda block: block.name)
def test_wrong_resamplers_are_caught(block: Block) -> None:
    assert not all(keeps_its_law(block, population) for population in populations(10, 4))


def test_a_chain_keeps_the_chained_laws() -> None:
    chain = [blocks.move(walk), blocks.reweight(odds), blocks.resample(), blocks.move(walk), blocks.thin(2)]
    start = distribution(spawn(importance(lambda choice: "abc"[draw(choice, (THIRD,) * 3)], odds), 2))
    said = law(chain, mean_measure(start))
    assert {k: v for k, v in expected(chain, start).items() if v} == {k: v for k, v in said.items() if v}


def test_importance_and_spawning_reach_the_target() -> None:
    target = dict(zip("abcd", (Fraction(n, 10) for n in (1, 2, 3, 4)), strict=True))
    assert guess_measure() == target
    for n in (1, 2, 3):
        assert mean_measure(distribution(spawn(guess, n))) == target


def test_importance_weighs_what_is_drawn() -> None:
    thirds = importance(lambda choice: "abc"[draw(choice, (THIRD,) * 3)], odds)
    assert measure_of(thirds) == {letter: THIRD * odds(letter) for letter in "abc"}


def test_resampling_waits_for_its_threshold() -> None:
    even, uneven = Population.even("abcd", Fraction(1)), Population(tuple("ab"), (Fraction(1), Fraction(0)))
    dead = Population(tuple("ab"), (Fraction(0), Fraction(0)))
    for population, found in ((even, even), (dead, dead)):
        assert distribution(lambda choice, at=population: blocks.resample().run(at, choice)) == {found: 1}
    assert blocks.resample(threshold=Fraction(1, 2)).run(uneven, None) is uneven  # type: ignore[arg-type]
    both = Population(tuple("aa"), (Fraction(1, 2),) * 2)
    assert distribution(lambda choice: blocks.resample(threshold=Fraction(3, 4)).run(uneven, choice)) == {both: 1}
