"""Estimates as they are shown, rows with their intercept, and log-probabilities of logits that no exponential holds."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.privacy.attacks.recovery import Share
from headrace.privacy.statistics import Estimate, log_softmax, middle, with_ones


def test_a_format_is_that_of_all_three() -> None:
    assert f"{Estimate(0.25, -0.5, 1):+.2f}" == "+0.25 [-0.50, +1.00]"
    share = Share(0.5, 0.25, 0.75, 0.01)
    assert f"{share:.1f}" == "0.5 [0.2, 0.8]" and f"{share}" == str(share)


def test_the_middle_leaves_a_fortieth_out_on_either_side() -> None:
    assert middle(np.arange(41.0)) == pytest.approx((1, 39))


def test_a_one_stands_behind_each_row() -> None:
    found = with_ones(np.array([[2, 3], [4, 5]], np.float32))
    assert found.tolist() == [[2, 3, 1], [4, 5, 1]] and found.dtype == np.float64


def test_log_probabilities_are_of_the_last_axis_at_any_height() -> None:
    logits = np.array([[0, np.log(3)], [1e5, 1e5]], np.float32)
    np.testing.assert_allclose(np.exp(log_softmax(logits)), [[0.25, 0.75], [0.5, 0.5]], rtol=1e-6)
    assert np.array_equal(log_softmax(logits)[0], log_softmax(logits[0])) and log_softmax(logits).dtype == np.float64
