"""Pooling adjacent violators gives the best monotone fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.reason.calibration import fit_isotonic
from headrace.reason.statistics import brier, expected_calibration_error
from headrace.spec.errors import InvalidRequest


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_the_fit_is_the_max_min_of_means(outcomes: list[float]) -> None:
    n = len(outcomes)
    best = [
        max(min(np.mean(outcomes[start:end]) for end in range(i + 1, n + 1)) for start in range(i + 1))
        for i in range(n)
    ]
    assert fit_isotonic(range(n), outcomes).probabilities == pytest.approx(best)


def test_equal_scores_share_one_level() -> None:
    fitted = fit_isotonic([0.3, 0.3, 0.3, 0.7], [1, 0, 0, 1])
    assert fitted(0.3) == pytest.approx(1 / 3) and fitted(0.7) == fitted(2.0) == 1.0
    assert fitted(0.0) == pytest.approx(1 / 3) and fitted(0.5) == pytest.approx(2 / 3)


def test_calibration_repairs_a_bent_score() -> None:
    rng = np.random.default_rng(0)
    true = rng.random(4000)
    outcomes, shown = rng.random(4000) < true, true**4
    fitted = fit_isotonic(shown[:2000], outcomes[:2000])
    repaired = [fitted(score) for score in shown[2000:]]
    before, after = (expected_calibration_error(p, outcomes[2000:]) for p in (shown[2000:], repaired))
    assert before > 0.2 and after < 0.06
    assert brier(repaired, outcomes[2000:]) < brier(shown[2000:], outcomes[2000:]) - 0.05


def test_nothing_to_fit_is_refused() -> None:
    for scores, outcomes in (([], []), ([1.0], [])):
        with pytest.raises(InvalidRequest):
            fit_isotonic(scores, outcomes)
