"""All four ways are unbiased, exactly, and so is thinning; the spread is as small as each method promises."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.reason.choice import Given, Seeded, runs
from headrace.reason.lognumber import from_logs
from headrace.reason.resample import METHODS, Method, ancestors, thin
from headrace.spec.errors import InvalidRequest

fractions = st.fractions(0, 3, max_denominator=12)
weights_of = st.lists(fractions, min_size=1, max_size=5).filter(any)


@pytest.mark.parametrize("method", METHODS)
@given(weights=weights_of, n=st.integers(1, 3))
@settings(max_examples=40)
def test_expected_offspring_is_exact(method: Method, weights: list[Fraction], n: int) -> None:
    found = [Fraction(0)] * len(weights)
    for probability, parents in runs(lambda choice: ancestors(weights, n, choice, method)):
        assert len(parents) == n
        for parent in parents:
            found[parent] += probability
    assert found == [n * weight / sum(weights) for weight in weights]


@pytest.mark.parametrize("method", ["systematic", "residual"])
@given(weights=weights_of, n=st.integers(1, 6))
@settings(max_examples=40)
def test_certain_offspring_are_certain(method: Method, weights: list[Fraction], n: int) -> None:
    for _, parents in runs(lambda choice: ancestors(weights, min(n, 3), choice, method)):
        counts = Counter(parents)
        for index, weight in enumerate(weights):
            exact = min(n, 3) * weight / sum(weights)
            assert counts[index] >= math.floor(exact)
            assert method == "residual" or counts[index] <= math.ceil(exact)


@given(weights=st.lists(fractions, min_size=1, max_size=6).filter(any), n=st.integers(1, 5))
@settings(max_examples=80)
def test_thinning_keeps_every_expected_weight(weights: list[Fraction], n: int) -> None:
    found = [Fraction(0)] * len(weights)
    for probability, (kept, fresh) in runs(lambda choice: thin(weights, n, choice)):
        assert len(kept) == len(set(kept)) == min(n, sum(map(bool, weights)))
        for index, weight in zip(kept, fresh, strict=True):
            found[index] += probability * weight
    assert found == weights


@pytest.mark.parametrize("method", METHODS)
def test_floats_and_logarithms_choose_as_fractions_do(method: Method) -> None:
    weights = [Fraction(n, 40) for n in (1, 0, 9, 5, 25)]
    for seed in range(50):
        plain = ancestors([float(weight) for weight in weights], 7, Seeded(seed), method)
        logs = from_logs(math.log(w) - 3000 if w else -math.inf for w in weights)
        assert ancestors(logs, 7, Seeded(seed), method) == plain == ancestors(weights, 7, Seeded(seed), method)


def test_uniforms_come_from_the_caller() -> None:
    uniforms = np.random.default_rng(5).random(4)
    assert ancestors([0.1, 0.2, 0.3, 0.4], 4, Given(uniforms), "multinomial") == tuple(
        int(index) for index in np.searchsorted(np.cumsum([0.1, 0.2, 0.3]), uniforms, side="right")
    )
    assert ancestors([0.5, 0.25, 0.25], 4, Given([0.5])) == (0, 0, 1, 2)
    assert thin([0.5, 0.2, 0.2, 0.1], 2, Given([0.5])) == ((0, 2), (0.5, 0.5))


@pytest.mark.parametrize("extreme", [0.0, np.nextafter(1.0, 0.0)])
@pytest.mark.parametrize("method", METHODS)
def test_extreme_uniforms_stay_inside(method: Method, extreme: float) -> None:
    weights = [0.0, *[0.1] * 9, 0.0]
    parents = ancestors(weights, 11, Given([extreme] * 11), method)
    assert len(parents) == 11 and all(weights[parent] > 0 for parent in parents)


def test_what_cannot_be_resampled_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="positive weight"):
        ancestors([0.0, 0.0], 2, Seeded(0))
    with pytest.raises(InvalidRequest, match="systematic, stratified, residual, multinomial"):
        ancestors([1.0], 1, Seeded(0), "killing")  # type: ignore[arg-type]
