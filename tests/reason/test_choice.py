"""One program, three sources of randomness; enumeration meets every run with its exact probability."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.reason.choice import Choice, Given, Seeded, distribution, draw, runs
from headrace.spec.errors import InvalidRequest

HALF = Fraction(1, 2)


def until_tails(choice: Choice) -> int:
    """Throws a coin until tails, three times at most."""
    for heads in range(3):
        if draw(choice, (HALF, HALF)):
            return heads
    return 3


def test_enumeration_is_exact() -> None:
    assert distribution(until_tails) == {0: HALF, 1: HALF**2, 2: HALF**3, 3: HALF**3}
    assert [value for _, value in runs(until_tails)] == [3, 2, 1, 0]
    assert distribution(lambda choice: "no draw") == {"no draw": 1}


@given(st.lists(st.fractions(0, 1, max_denominator=9), min_size=1, max_size=6).filter(any))
def test_a_draw_has_its_probabilities(weights: list[Fraction]) -> None:
    shares = [weight / sum(weights) for weight in weights]
    found = distribution(lambda choice: draw(choice, shares))
    assert found == {index: share for index, share in enumerate(shares) if share}


@given(st.floats(0, 1, exclude_max=True), st.lists(st.floats(0, 5), min_size=1, max_size=8).filter(any))
def test_a_float_draw_never_meets_probability_zero(uniform: float, weights: list[float]) -> None:
    shares = [weight / sum(weights) for weight in weights]
    if any(share > 0 for share in shares):
        assert shares[draw(Given([uniform]), shares)] > 0


def test_seeded_streams_repeat() -> None:
    def thousand(seed: int) -> list[int]:
        source = Seeded(seed)
        return [until_tails(source) for _ in range(1000)]

    assert thousand(1) == thousand(1) != thousand(2)
    assert 430 < thousand(3).count(0) < 570


def test_used_up_uniforms_are_refused() -> None:
    source = Given([0.1])
    assert draw(source, (0.5, 0.5)) == 0
    with pytest.raises(InvalidRequest, match="one for each particle"):
        draw(source, (0.5, 0.5))
