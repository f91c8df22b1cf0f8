"""Unknown is not certain (defect 5 of other libraries)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from headrace.reason.confidence import lowest_confidence, token_confidence


def test_a_sharp_token_is_surer_than_a_flat_one() -> None:
    sharp, flat = [math.log(p) for p in (0.96, 0.01, 0.01, 0.01, 0.01)], [math.log(0.2)] * 5
    sure, unsure = token_confidence(sharp), token_confidence(flat)
    assert sure is not None and sure > 2 and unsure == pytest.approx(math.log(5))


def test_what_is_unknown_says_nothing() -> None:
    assert token_confidence([]) is None
    assert lowest_confidence([], 8) is None


def test_the_lowest_window() -> None:
    values = np.random.default_rng(0).random(50)
    means = [values[i : i + 8].mean() for i in range(43)]
    assert lowest_confidence(values.tolist(), 8) == pytest.approx(min(means))
    assert lowest_confidence([1.0, 2.0], 2048) == pytest.approx(1.5)
