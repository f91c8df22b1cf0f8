"""Moves between dimensions hold detailed balance exactly; without the Jacobian or the place's choice they do not."""

from __future__ import annotations

from fractions import Fraction

import pytest

from headrace.evidence.finite import broken_pairs, coins, lattice, liked, mass, split_or_merge
from headrace.reason.blocks import push
from headrace.reason.choice import Choice, Given, Seeded, distribution, draw
from headrace.reason.green import Proposal, Traced, acceptance, metropolis_hastings, regenerate, traced


def posterior() -> dict:
    return {trace: prior * liked(trace.value) for trace, prior in distribution(traced(coins)).items()}


def test_split_and_merge_hold_detailed_balance() -> None:
    masses = {state: mass(state) for state in lattice()}
    assert broken_pairs(split_or_merge(), masses) == 0
    assert push(masses, split_or_merge()) == masses
    assert {len(state) for state in distribution(lambda c: split_or_merge()((Fraction(1, 2),), c))} == {1, 2}


@pytest.mark.parametrize("jacobian", [1, 4])
def test_a_wrong_jacobian_is_caught(jacobian: int) -> None:
    masses = {state: mass(state) for state in lattice()}
    assert broken_pairs(split_or_merge(jacobian), masses) > 0
    assert push(masses, split_or_merge(jacobian)) != masses


def test_traces_of_different_length_hold_detailed_balance() -> None:
    masses = posterior()
    assert {len(trace.uniforms) for trace in masses} == {3, 4, 5}
    assert broken_pairs(regenerate(coins, liked), masses) == 0
    assert push(masses, regenerate(coins, liked)) == masses


def test_forgetting_how_the_place_was_chosen_is_caught() -> None:
    def propose(old, choice: Choice) -> Proposal:
        place = draw(choice, [Fraction(1, len(old.uniforms))] * len(old.uniforms))
        return Proposal(traced(coins, old.uniforms[:place])(choice), 1, 1)

    assert broken_pairs(metropolis_hastings(lambda trace: liked(trace.value), propose), posterior()) > 0


def test_tracing_changes_no_value() -> None:
    by_value: dict = {}
    for trace, probability in distribution(traced(coins)).items():
        by_value[trace.value] = by_value.get(trace.value, 0) + probability
        assert coins(Given(trace.uniforms)) == trace.value
    assert by_value == distribution(coins)


def test_a_program_without_draws_stays() -> None:
    kernel = regenerate(lambda choice: "sure", lambda value: Fraction(2))
    assert distribution(lambda choice: kernel(Traced("sure", ()), choice)) == {Traced("sure", ()): 1}


def test_acceptance() -> None:
    assert acceptance(Fraction(2), Fraction(1)) == Fraction(1, 2)
    assert acceptance(1, 5) == 1 == acceptance(0, 0)
    assert acceptance(0.5, 0.0) == 0.0


def test_a_chain_of_floats_visits_the_posterior() -> None:
    """Continuous and long runs are shown by statistics only: the share of each value within 3 points."""
    masses, kernel, source = posterior(), regenerate(coins, liked), Seeded(11)
    trace, seen, steps = traced(coins)(source), {}, 8_000
    for _ in range(steps):
        trace = kernel(trace, source)
        seen[trace.value] = seen.get(trace.value, 0) + 1
    whole = sum(masses.values())
    for value in seen:
        exact = sum(mass for trace, mass in masses.items() if trace.value == value) / whole
        assert seen[value] / steps == pytest.approx(float(exact), abs=0.03)
