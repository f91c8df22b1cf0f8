"""Shares have honest intervals, results go through JSON, and a threshold is kept."""

from __future__ import annotations

import json

import numpy as np
import pytest

from headrace.privacy.attacks.recovery import (
    UNKNOWN,
    Clock,
    Cost,
    Recovery,
    RecoveryOverThreshold,
    score_confidence,
    score_map,
    share,
)
from headrace.spec.errors import InvalidRequest

COST = Cost(1.5, 2_000_000, 300)


def test_an_interval_of_equal_things_is_wilson_s() -> None:
    found = np.arange(100) < 30
    value = share(np.ones(100), found, 0.3)
    assert (value.value, round(value.low, 4), round(value.high, 4)) == (0.3, 0.2189, 0.3958)
    assert value.contains_chance and not share(np.ones(100), found, 0.1).contains_chance


def test_one_heavy_thing_widens_the_interval() -> None:
    weights = np.r_[1000.0, np.ones(99)]
    heavy, even = share(weights, weights > 1, 0.01), share(np.ones(100), np.arange(100) < 91, 0.01)
    assert heavy.value == pytest.approx(1000 / 1099)
    assert heavy.high - heavy.low > 4 * (even.high - even.low)


def test_all_and_nothing_stay_inside_their_intervals() -> None:
    for found in (np.ones(7, bool), np.zeros(7, bool)):
        value = share(np.full(7, 1 / 3), found, 0.1)
        assert 0 <= value.low <= value.value <= value.high <= 1


def test_nothing_to_recover_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        share(np.zeros(3), np.zeros(3, bool), 0.1)


def test_only_ids_that_occur_and_were_not_told_are_scored() -> None:
    truth, guess = np.array([3, 2, 1, 0]), np.array([3, 2, UNKNOWN, 1])
    counts, held_out = np.array([6, 3, 1, 0]), np.array([False, True, True, True])
    all_ids = score_map("some", guess, truth, COST)
    assert (all_ids.types.value, all_ids.scored) == (0.5, 4)
    seen = score_map("some", guess, truth, COST, counts)
    assert (seen.types.value, seen.mass.value, seen.scored) == (pytest.approx(2 / 3), 0.9, 3)
    untold = score_map("some", guess, truth, COST, counts, held_out)
    assert (untold.types.value, untold.mass.value, untold.types.chance) == (0.5, 0.75, 0.25)


def test_a_result_goes_through_json() -> None:
    result = score_map("some", np.arange(9), np.arange(9), COST, details={"pairs": 3})
    assert Recovery.from_json(json.loads(json.dumps(result.to_json()))) == result
    assert "100.00%" in str(result) and "300 tokens of traffic" in str(result) and "2 MB" in str(result)


def test_a_threshold_fails_above_and_passes_at() -> None:
    result = score_map("some", np.array([0, 1, 3, 2]), np.arange(4), COST)
    result.check(0.5)
    with pytest.raises(RecoveryOverThreshold, match=r"some recovered 50.00%.*higher --threshold\.$"):
        result.check(0.49)
    with pytest.raises(RecoveryOverThreshold):
        result.check(float("nan"))


def test_a_threshold_says_nothing_of_what_no_key_scored() -> None:
    unsure = score_confidence("some", np.zeros(4, bool), 0.1, COST)
    with pytest.raises(InvalidRequest, match="give --key, or leave --threshold out"):
        unsure.check(0.5)


def test_the_clock_counts_work_and_bytes() -> None:
    clock = Clock()
    np.linalg.svd(np.random.default_rng(0).standard_normal((200, 200)))
    cost = clock.cost(np.zeros(10), np.zeros(5, np.float32), tokens=7)
    assert cost.seconds > 0 and (cost.bytes, cost.tokens) == (100, 7)
