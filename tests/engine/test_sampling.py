"""Draws against slow exact oracles: noise, filters, penalties, log-probabilities."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.engine.sampling import NoiseKey, adjust, candidates, draw, gumbel, noise_of, token_logprob
from headrace.spec.errors import InvalidRequest
from headrace.spec.sampling import Sampling

KEY = NoiseKey(7, (0,))
GOLDEN = [1.063186814639768, -0.06069334930297552, -1.217112755639777]
VALUES = st.lists(st.sampled_from([-3.0, -1.0, 0.0, 0.5, 0.5, 1.0, 2.0, 2.0, 4.0]), min_size=1, max_size=40)


def softmax(values: np.ndarray) -> np.ndarray:
    weights = np.exp(values - values.max())
    return weights / weights.sum()


# -- noise ---------------------------------------------------------------------------------------------


def test_draws_are_distributed_as_the_softmax() -> None:
    logits = np.array([1.0, 0.0, -1.0, 2.0, 0.5, -2.0], np.float32)
    draws = 4000
    for temperature in (0.7, 1.0, 1.6):
        sampling = Sampling(temperature=temperature)
        counts = np.zeros(6)
        for position in range(draws):
            counts[draw(logits, sampling, KEY, range(position), 0)] += 1
        expected = draws * softmax(logits.astype(np.float64) / temperature)
        assert ((counts - expected) ** 2 / expected).sum() < 20.5  # chi-square, 5 degrees: p = 0.001


def test_draws_over_seeds_are_distributed_as_the_softmax() -> None:
    logits = np.array([1.0, 0.0, -1.0, 2.0], np.float32)
    counts = np.bincount([draw(logits, Sampling(), NoiseKey(s, (0,)), [1], 0) for s in range(4000)], minlength=4)
    expected = 4000 * softmax(logits.astype(np.float64))
    assert ((counts - expected) ** 2 / expected).sum() < 16.3  # chi-square, 3 degrees: p = 0.001


def test_noise_depends_on_seed_path_and_position_only() -> None:
    ids = np.arange(50)
    base = noise_of(KEY.words(), 3, ids, 50)
    assert np.array_equal(base, noise_of(NoiseKey(7, (0,)).words(), 3, ids, 50))
    others = [
        noise_of(NoiseKey(8, (0,)).words(), 3, ids, 50),
        noise_of(NoiseKey(7, (1,)).words(), 3, ids, 50),
        noise_of(NoiseKey(7, (0, 0, 0)).words(), 3, ids, 50),
        noise_of(KEY.words(), 4, ids, 50),
    ]
    every = np.concatenate([base, *others])
    assert len(np.unique(every)) == len(every)


def test_noise_of_neighbouring_positions_does_not_overlap() -> None:
    ids = np.arange(1000)
    assert len(np.unique(np.concatenate([noise_of(KEY.words(), p, ids, 1000) for p in range(20)]))) == 20_000


@given(st.lists(st.integers(0, 99), min_size=1, max_size=20), st.integers(0, 2**40), st.integers(-(2**63), 2**64 - 1))
def test_noise_of_some_tokens_is_that_of_all(ids: list[int], position: int, seed: int) -> None:
    key = NoiseKey(seed, (0, 3, 1))
    chosen = np.array(ids)
    assert np.array_equal(
        noise_of(key.words(), position, chosen, 100), noise_of(key.words(), position, np.arange(100), 100)[chosen]
    )


def test_noise_is_finite_at_both_ends() -> None:
    ends = gumbel(np.array([0, 2**64 - 1, 2**64 - 2**11], dtype=np.uint64))
    assert np.isfinite(ends).all()


def test_noise_stays_what_it_is() -> None:
    """Seeds that users wrote down must give the same tokens in later versions."""
    assert noise_of(NoiseKey(1, (0,)).words(), 5, np.array([0, 1, 17]), 18) == pytest.approx(GOLDEN, abs=1e-9)


# -- filters -------------------------------------------------------------------------------------------


def slow_candidates(values: list[float], top_k: int, top_p: float, min_p: float) -> set[int]:
    """Exact arithmetic on the weights; equal logits rank by id."""
    ranked = sorted(range(len(values)), key=lambda i: (-values[i], i))
    if top_k:
        ranked = ranked[:top_k]
    if top_p < 1:
        weights = [Fraction(math.exp(values[i] - values[ranked[0]])) for i in ranked]
        total, mass, kept = sum(weights), Fraction(0), 0
        while mass < Fraction(top_p) * total:
            mass += weights[kept]
            kept += 1
        ranked = ranked[:kept]
    if min_p > 0:
        ranked = [i for i in ranked if math.exp(values[i] - values[ranked[0]]) >= min_p]
    return set(ranked)


@settings(max_examples=300, deadline=None)
@given(
    VALUES, st.integers(0, 45), st.sampled_from([0.05, 0.37, 0.61, 0.93, 1.0]), st.sampled_from([0.0, 0.03, 0.3, 1.0])
)
def test_filters_match_a_slow_oracle(values: list[float], top_k: int, top_p: float, min_p: float) -> None:
    found = candidates(np.array(values), Sampling(top_k=top_k, top_p=top_p, min_p=min_p))
    assert len(found) == len(set(found.tolist()))
    assert set(found.tolist()) == slow_candidates(values, top_k, top_p, min_p)


@pytest.mark.parametrize("top_p", [0.001, 0.3, 0.9, 0.999, 0.9999999])
def test_nucleus_of_a_large_vocabulary(top_p: float) -> None:
    values = np.random.default_rng(0).normal(size=3000).round(2)  # many ties
    found = candidates(values, Sampling(top_p=top_p))
    assert set(found.tolist()) == slow_candidates(values.tolist(), 0, top_p, 0)


def test_equal_logits_rank_by_id() -> None:
    flat = np.zeros(10)
    assert candidates(flat, Sampling(top_k=3)).tolist() == [0, 1, 2]
    assert candidates(flat, Sampling(top_p=0.35)).tolist() == [0, 1, 2, 3]
    assert candidates(flat, Sampling(min_p=1.0)).tolist() == list(range(10))
    assert candidates(flat, Sampling(top_k=4, top_p=0.5)).tolist() == [0, 1]


def test_the_filters_are_those_of_the_scaled_logits() -> None:
    logits = np.array([2.0, 1.0, 0.0], np.float32)
    drawn = {draw(logits, Sampling(temperature=10, min_p=0.9), NoiseKey(s, (0,)), [1], 0) for s in range(200)}
    assert drawn == {0, 1}
    drawn = {draw(logits, Sampling(temperature=0.1, min_p=0.9), NoiseKey(s, (0,)), [1], 0) for s in range(50)}
    assert drawn == {0}


@pytest.mark.parametrize("temperature", [1e-320, 1e-300, 1e-30])
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    logits = np.array([1.0, 5.0, 7.0, 6.999], np.float32)
    for extra in ({}, {"top_p": 0.5}, {"min_p": 0.1}):
        assert draw(logits, Sampling(temperature=temperature, **extra), KEY, [1], 0) == 2


def test_greedy_takes_the_first_of_the_best() -> None:
    logits = np.array([1.0, 3.0, 3.0], np.float32)
    assert draw(logits, Sampling(temperature=0), KEY, [1], 0) == 1
    assert draw(logits, Sampling(temperature=2, top_k=1), KEY, [1], 0) == 1


# -- penalties and bias --------------------------------------------------------------------------------


def test_penalties_worked_by_hand() -> None:
    logits = np.array([2.0, -2.0, 1.0, 0.5], np.float32)
    tokens = [0, 1, 2, 2, 3]  # prompt 0 1, then 2 2 3
    repeated = adjust(logits, Sampling(repetition_penalty=2.0), tokens[:3], 2)
    assert repeated.tolist() == [1.0, -4.0, 0.5, 0.5]
    assert adjust(logits, Sampling(presence_penalty=0.5), tokens, 2).tolist() == [2.0, -2.0, 0.5, 0.0]
    assert adjust(logits, Sampling(frequency_penalty=0.5), tokens, 2).tolist() == [2.0, -2.0, 0.0, 0.0]
    assert adjust(logits, Sampling(presence_penalty=-1, frequency_penalty=0.25), tokens, 2).tolist() == [
        2.0,
        -2.0,
        1.5,
        1.25,
    ]
    biased = adjust(logits, Sampling(logit_bias={1: 100.0, 3: -1.5}), tokens, 2)
    assert biased.tolist() == [2.0, 98.0, 1.0, -1.0]
    assert logits.tolist() == [2.0, -2.0, 1.0, 0.5], "the executor's array was changed"


def test_without_penalties_nothing_is_copied() -> None:
    logits = np.zeros(4, np.float32)
    assert adjust(logits, Sampling(), [1, 2], 1) is logits


def test_bias_and_penalties_reach_greedy_draws() -> None:
    logits = np.array([2.0, 1.5, 0.0], np.float32)
    greedy = {"temperature": 0}
    assert draw(logits, Sampling(**greedy, logit_bias={2: 5.0}), KEY, [0], 1) == 2
    assert draw(logits, Sampling(**greedy, presence_penalty=1.0), KEY, [1, 0], 1) == 1
    assert draw(logits, Sampling(**greedy, presence_penalty=1.0), KEY, [0, 2], 1) == 0


# -- log-probabilities ---------------------------------------------------------------------------------


@given(st.lists(st.floats(-80, 80, width=32), min_size=1, max_size=60), st.data())
def test_logprobs_are_those_of_the_softmax(values: list[float], data: st.DataObject) -> None:
    logits = np.array(values, np.float32)
    token = data.draw(st.integers(0, len(values) - 1))
    top = data.draw(st.integers(0, 20))
    found = token_logprob(logits, token, top)
    exact = logits.astype(np.longdouble)
    exact = exact - exact.max() - np.log(np.exp(exact - exact.max()).sum())
    assert found.token_id == token and found.logprob == pytest.approx(float(exact[token]), abs=1e-12, rel=1e-12)
    ranked = sorted(range(len(values)), key=lambda i: (-logits[i], i))[:top]
    assert [i for i, _ in found.top] == ranked
    assert [p for _, p in found.top] == pytest.approx([float(exact[i]) for i in ranked], abs=1e-12, rel=1e-12)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("min_p", 1.5),
        ("logprobs", 21),
        ("repetition_penalty", 0.0),
        ("presence_penalty", 2.1),
        ("temperature", float("nan")),
    ],
)
def test_values_out_of_range_are_named(field: str, value: float) -> None:
    with pytest.raises(InvalidRequest, match=field) as caught:
        Sampling(**{field: value})
    assert caught.value.field == field
