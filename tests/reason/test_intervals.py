"""Intervals hold what they promise on planted data, and keep a question's samples together."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from headrace.reason.intervals import (
    bootstrap,
    cluster_bootstrap,
    detectable_difference,
    mcnemar,
    paired_bootstrap,
    ratio_interval,
    wilson,
)
from headrace.spec.errors import InvalidRequest


def test_wilson_covers_as_it_says() -> None:
    """The exact coverage over all outcomes, averaged over rates, is close to 95 %."""
    coverage = []
    for p in np.linspace(0.05, 0.95, 19):
        hits = [
            comb(40, c) * p**c * (1 - p) ** (40 - c) for c in range(41) if wilson(c, 40)[0] <= p <= wilson(c, 40)[1]
        ]
        coverage.append(sum(hits))
    assert 0.94 < np.mean(coverage) < 0.96
    assert wilson(0, 20)[0] == 0.0 < wilson(0, 20)[1] < 0.2
    assert wilson(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson(1, 2)[0] < wilson(1.3, 2.6)[0] < wilson(1.5, 3)[0] < 0.5
    for successes, trials in ((1, 0), (3, 2), (-1, 2)):
        with pytest.raises(InvalidRequest):
            wilson(successes, trials)


def test_bootstrap_of_mean_and_median() -> None:
    assert bootstrap([2.0] * 8) == (2.0, 2.0)
    values = [0.0, 1.0] * 50
    low, high = bootstrap(values)
    assert 0.38 < low < 0.45 and 0.55 < high < 0.62
    assert bootstrap(values, seed=1) != (low, high) == bootstrap(values)
    assert bootstrap(range(101), lambda data: np.median(data, axis=-1))[0] > 35
    with pytest.raises(InvalidRequest):
        bootstrap([])


def test_clusters_widen_an_interval() -> None:
    """Twenty questions whose eight samples agree say no more than twenty samples."""
    rng = np.random.default_rng(1)
    answers = (rng.random(20) < 0.5).astype(float)
    clustered, single = cluster_bootstrap([[answer] * 8 for answer in answers]), bootstrap(answers)
    naive = bootstrap(np.repeat(answers, 8))
    assert clustered == pytest.approx(single, abs=0.03)
    assert naive[1] - naive[0] < 0.5 * (clustered[1] - clustered[0])
    low, high = cluster_bootstrap([[0.0], [1.0, 1.0, 1.0]])
    assert low == 0.0 and high == 1.0


def test_cluster_intervals_cover_the_planted_mean() -> None:
    rng, hits = np.random.default_rng(2), 0
    for number in range(200):
        p = rng.beta(1.0, 1.0, size=60)
        groups = (rng.random((60, 4)) < p[:, None]).astype(float)
        low, high = cluster_bootstrap(groups, seed=number, resamples=400)
        hits += low <= 0.5 <= high
    assert hits >= 180


def test_pairs_see_what_unpaired_samples_hide() -> None:
    rng = np.random.default_rng(3)
    hard = rng.normal(size=200) * 5
    mean, (low, high) = paired_bootstrap(hard + 0.5 + rng.normal(size=200), hard)
    assert low > 0.2 and high < 0.8 and low < mean < high
    with pytest.raises(InvalidRequest, match="same questions"):
        paired_bootstrap([1.0], [1.0, 2.0])


def test_mcnemar() -> None:
    assert mcnemar(0, 0) == mcnemar(5, 5) == 1.0
    assert mcnemar(0, 5) == mcnemar(5, 0) == pytest.approx(2 / 32)
    assert mcnemar(2, 8) == pytest.approx(2 * (1 + 10 + 45) / 1024)


def test_a_difference_of_the_detectable_size_is_found_as_often_as_promised() -> None:
    rng = np.random.default_rng(4)
    pilot = rng.choice([-1.0, 0.0, 1.0], size=4000, p=[0.2, 0.6, 0.2])
    size = detectable_difference(pilot, questions=250)
    assert size == pytest.approx(2.8016 * np.std(pilot, ddof=1) / 250**0.5, rel=1e-3)
    drawn = rng.choice([-1.0, 0.0, 1.0], size=(2000, 250), p=[0.2 - size / 2, 0.6, 0.2 + size / 2])
    found = drawn.mean(axis=1) > 1.96 * drawn.std(axis=1, ddof=1) / 250**0.5
    assert 0.77 < found.mean() < 0.83
    with pytest.raises(InvalidRequest):
        detectable_difference([0.0])


def test_ratios() -> None:
    mean, (low, high) = ratio_interval([2.0, 2.0, 2.0])
    assert mean == pytest.approx(2.0) and low == pytest.approx(2.0) and high == pytest.approx(2.0)
    mean, (low, high) = ratio_interval([1.0, 4.0])
    assert mean == pytest.approx(2.0) and low < 0.01 and high > 100
