"""Estimators against enumeration of all subsets and orders; AUC against all pairs; calibration by hand."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import combinations, permutations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.reason.statistics import auc, best_at_k, brier, expected_calibration_error, maj_at_k, pass_at_k
from headrace.spec.errors import InvalidRequest

sizes = st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n)))


@given(sizes)
def test_pass_at_k_is_the_ratio_of_binomials(case: tuple[int, int, int]) -> None:
    n, correct, k = case
    assert pass_at_k(n, correct, k) == pytest.approx(float(1 - Fraction(comb(n - correct, k), comb(n, k))), abs=1e-12)


@given(st.fractions(0, 1, max_denominator=20), st.integers(1, 8), st.data())
def test_pass_at_k_is_unbiased(p: Fraction, n: int, data: st.DataObject) -> None:
    """Its mean over the binomial number of successes is 1 - (1 - p)^k; that of 1 - (1 - c/n)^k is not."""
    k = data.draw(st.integers(1, n))
    shares = [comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    mean = sum(float(share) * pass_at_k(n, c, k) for c, share in enumerate(shares))
    assert mean == pytest.approx(float(1 - (1 - p) ** k), abs=1e-12)
    plug_in = sum(float(share) * (1 - (1 - c / n) ** k) for c, share in enumerate(shares))
    assert (0 < p < 1 and k > 1) or plug_in == pytest.approx(mean)
    assert not (p == Fraction(1, 2) and k > 1) or plug_in < mean


@given(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=6), st.data())
@settings(max_examples=60)
def test_maj_at_k_is_the_vote_over_all_orders(answers: list[str | None], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(answers)))
    won = total = 0
    for drawn in permutations(answers, k):
        votes = Counter(answer for answer in drawn if answer is not None)
        won += bool(votes) and votes.most_common(1)[0][0] == "a"  # a Counter keeps the order of first sight
        total += 1
    assert maj_at_k(answers, "a", k) == pytest.approx(won / total)


def test_maj_at_k_is_quick_for_many_samples() -> None:
    answers = ["a"] * 40 + [str(number) for number in range(60)]
    assert maj_at_k(answers, "a", 1) == pytest.approx(0.4)
    assert maj_at_k(answers, "a", 64) == pytest.approx(1.0)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=6), st.data())
@settings(max_examples=60)
def test_best_at_k_is_the_best_over_all_orders(pairs: list[tuple[int, bool]], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(pairs)))
    outcomes = [max(drawn, key=lambda pair: pair[0])[1] for drawn in permutations(pairs, k)]
    scores, correct = zip(*pairs, strict=True)
    assert best_at_k(scores, correct, k) == pytest.approx(sum(outcomes) / len(outcomes))


def test_what_cannot_be_estimated_is_refused() -> None:
    for estimate in (lambda: pass_at_k(4, 1, 5), lambda: maj_at_k(["a"], "a", 2), lambda: best_at_k([1], [True], 0)):
        with pytest.raises(InvalidRequest, match="take more samples or a smaller k"):
            estimate()
    with pytest.raises(InvalidRequest, match="count again"):
        pass_at_k(4, 5, 1)
    with pytest.raises(InvalidRequest, match="some of both"):
        auc([1.0, 2.0], [True, True])


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=30))
def test_auc_counts_pairs(pairs: list[tuple[int, bool]]) -> None:
    right, wrong = ([score for score, good in pairs if good == side] for side in (True, False))
    if right and wrong:
        value, (low, high) = auc(*zip(*pairs, strict=True), resamples=50)
        beaten = sum((a > b) + (a == b) / 2 for a in right for b in wrong)
        assert value == pytest.approx(beaten / (len(right) * len(wrong)))
        assert 0 <= low <= high <= 1


def test_auc_interval_respects_questions() -> None:
    """Eight copies of each candidate add no evidence when they belong to one question."""
    rng = np.random.default_rng(0)
    correct = rng.random(60) < 0.5
    scores = rng.normal(size=60) + correct
    plain = auc(scores, correct)
    repeated, questions = np.repeat(scores, 8), np.repeat(np.arange(60), 8)
    grouped, naive = (auc(repeated, np.repeat(correct, 8), q) for q in (questions, None))
    widths = [high - low for _, (low, high) in (plain, grouped, naive)]
    assert plain[0] == grouped[0] == naive[0]
    assert widths[1] == pytest.approx(widths[0], rel=0.2) and widths[2] < 0.5 * widths[0]


def test_calibration_by_hand() -> None:
    assert brier([1.0, 0.0, 0.5], [True, True, False]) == pytest.approx(1.25 / 3)
    assert expected_calibration_error([0.1] * 10, [True] + [False] * 9) == pytest.approx(0.0)
    assert expected_calibration_error([1.0, 1.0, 0.05], [True, False, False]) == pytest.approx(1.05 / 3)


def test_every_subset_is_counted_once() -> None:
    flags = [True, False, False, True, False]
    found = [any(flags[index] for index in subset) for subset in combinations(range(5), 2)]
    assert pass_at_k(5, 2, 2) == pytest.approx(sum(found) / len(found))
