"""Votes and allocations; each switch does what it says (defect 13 of other libraries)."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.reason.votes import allocate, dedupe, vote
from headrace.spec.errors import InvalidRequest

weights_of = st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.floats(0, 10)), max_size=12)


def test_majority() -> None:
    found = vote(["4", "5", None, "4"])
    assert (found.answer, found.share, found.tied, found.unparsed) == ("4", pytest.approx(2 / 3), (), 1)
    assert list(found.weights.items()) == [("4", 2.0), ("5", 1.0)]


def test_ties_go_to_the_first_seen_and_are_recorded() -> None:
    assert vote(["b", "a", "a", "b", "c"]).answer == "b"
    assert vote(["b", "a", "a", "b", "c"]).tied == ("a",)
    assert 0.1 + 0.2 + 0.3 != 0.3 + 0.2 + 0.1, "and yet the same votes in another order tie"
    assert vote(list("ababab"), [0.1, 0.3, 0.2, 0.2, 0.3, 0.1]).tied == ("b",)


def test_nothing_to_count() -> None:
    assert vote([]).answer is None and vote([None, None]).answer is None
    assert vote([None]).share == 0.0
    assert vote(["a", "b"], [0.0, 0.0]).tied == ("b",)
    for weight in (-0.1, math.nan):
        with pytest.raises(InvalidRequest):
            vote(["a"], [weight])


def test_the_worst_candidate_keeps_its_say() -> None:
    """Rescaled to 0 … 1 within the question, both of b's votes would count nothing."""
    assert vote(["a", "b", "b"], [0.5, 0.4, 0.4]).answer == "b"


@given(weights_of)
def test_the_winner_has_the_most(pairs: list[tuple[str | None, float]]) -> None:
    found = vote([key for key, _ in pairs], [weight for _, weight in pairs])
    for key in {key for key, _ in pairs if key is not None}:
        assert math.fsum(w for k, w in pairs if k == key) <= found.weights[found.answer]
    assert all(found.weights[key] == found.weights[found.answer] for key in found.tied)


def test_duplicates_are_found() -> None:
    assert dedupe(["x = 1", "x=1", "y"], lambda text: text.replace(" ", "")) == ["x = 1", "y"]


def test_topk_and_dvts() -> None:
    scores = [0.2, 0.9, 0.5, 0.9]
    assert allocate(scores, 8, keep=2) == (0, 4, 0, 4)
    assert allocate(scores, 7, keep=2) == (0, 4, 0, 3)
    assert allocate(scores, 3, keep=9) == (0, 1, 1, 1)
    assert allocate(scores, 4, "dvts", trees=["s", "t", "s", "t"]) == (0, 2, 2, 0)


def test_rebase_follows_the_softmax() -> None:
    even = [0.5] * 4
    assert allocate(even, 8, "rebase") == (2, 2, 2, 2)
    assert allocate(even, 6, "rebase") == (2, 2, 1, 1)
    scores = [0.2 * math.log(n) for n in (1, 2, 5)]
    assert allocate(scores, 16, "rebase") == (2, 4, 10)
    assert allocate([0.0, 1.0], 10, "rebase", temperature=0.01) == (0, 10)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=9), st.integers(0, 40), st.floats(0.05, 3), st.integers(1, 4))
def test_allocations_sum_to_n_and_respect_the_order(scores: list[float], n: int, heat: float, keep: int) -> None:
    trees = [index % keep for index in range(len(scores))]
    for found in (
        allocate(scores, n, keep=keep),
        allocate(scores, n, "rebase", temperature=heat),
        allocate(scores, n, "dvts", trees=trees),
    ):
        assert sum(found) == n and min(found) >= 0
    better = allocate(scores, n, "rebase", temperature=heat)
    pairs = [(scores[i] - scores[j], better[i] - better[j]) for i in range(len(scores)) for j in range(i)]
    assert all(more >= 0 for ahead, more in pairs if ahead > 1e-6)


def test_rules_say_what_they_lack() -> None:
    for arguments in ({"rule": "dvts"}, {"rule": "puct"}, {"rule": "rebase", "temperature": 0.0}):
        with pytest.raises(InvalidRequest):
            allocate([0.1], 4, **arguments)
    with pytest.raises(InvalidRequest, match="at least one"):
        allocate([], 4)
