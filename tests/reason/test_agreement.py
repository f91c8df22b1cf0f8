"""P5: stopping looks at issue order, so that long right answers are not voted down by short wrong ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from random import Random
from statistics import fmean

import pytest

from headrace.reason.agreement import betastop, finished_prefix, lead, stop_after
from headrace.reason.votes import vote

BUDGET, RIGHT = 40, 0.55
Draw = tuple[str, float]


def test_lead_is_the_incomplete_beta_function() -> None:
    assert lead(0, 0) == Fraction(1, 2)
    assert lead(5, 0) == 1 - Fraction(1, 64)
    for first, second in ((1, 0), (7, 3), (3, 7), (30, 12)):
        steps = 40_000
        grid = [(i + 0.5) / steps / 2 for i in range(steps)]
        area = sum(x**first * (1 - x) ** second for x in grid) / steps / 2
        whole = math.factorial(first) * math.factorial(second) / math.factorial(first + second + 1)
        assert float(lead(first, second)) == pytest.approx(1 - area / whole, rel=1e-6)
        assert lead(first, second) + lead(second, first) == 1


def test_betastop_at_its_threshold() -> None:
    assert [betastop([n]) for n in range(6)] == [False] * 4 + [True] * 2
    assert betastop([0, 3], 0.9375) and not betastop([3], 0.938)
    assert betastop([3, 400, 500.0]) and not betastop([480, 500]) and not betastop([])


def test_only_what_is_finished_without_a_gap_is_looked_at() -> None:
    assert finished_prefix([]) == finished_prefix([False, True]) == 0
    assert finished_prefix([True, True, False, True]) == 2
    assert finished_prefix([True] * 3) == 3


def test_stopping_counts_parsed_answers() -> None:
    assert stop_after(["a"] * 9) == 4
    assert stop_after(["a", None, "a", None, "a", "a"]) == 6
    assert stop_after(["a", "b"] * 10) is None
    assert stop_after([]) is stop_after([None] * 50) is None


def draws(rng: Random, longer: float) -> list[Draw]:
    """Answers with the times at which they finish; right ones take `longer` times as long."""
    found = []
    for _ in range(BUDGET):
        right = rng.random() < RIGHT
        found.append(
            ("right" if right else rng.choice(["wrong", "false"]), rng.uniform(0.5, 1.5) * (longer if right else 1))
        )
    return found


def in_issue_order(drawn: Sequence[Draw]) -> tuple[str, int]:
    """All run at once; at every finish the rule looks at the finished prefix."""
    for clock in sorted(end for _, end in drawn):
        seen = [answer for answer, _ in drawn[: finished_prefix([end <= clock for _, end in drawn])]]
        if (count := stop_after(seen)) is not None:
            return str(vote(seen[:count]).answer), count
    return str(vote([answer for answer, _ in drawn]).answer), len(drawn)


def in_completion_order(drawn: Sequence[Draw]) -> tuple[str, int]:
    """What other libraries do (defect 4): whichever finishes first is counted first."""
    done = [answer for answer, _ in sorted(drawn, key=lambda one: one[1])]
    count = stop_after(done) or len(done)
    return str(vote(done[:count]).answer), count


def one_by_one(drawn: Sequence[Draw]) -> tuple[str, int]:
    """The rule as published: each sample is awaited before the next is drawn, so lengths cannot matter."""
    answers = [answer for answer, _ in drawn]
    count = stop_after(answers) or len(answers)
    return str(vote(answers[:count]).answer), count


def experiment(
    way: Callable[[Sequence[Draw]], tuple[str, int]], questions: int, seed: int, longer: float = 3
) -> list[float]:
    """Accuracy and the mean number of samples."""
    rng = Random(seed)
    ends = [way(draws(rng, longer)) for _ in range(questions)]
    return [fmean(answer == "right" for answer, _ in ends), fmean(count for _, count in ends)]


def test_issue_order_equals_waiting_for_each() -> None:
    for seed in range(60):
        drawn = draws(Random(seed), 3)
        assert in_issue_order(drawn) == one_by_one(drawn)


def check_unbiased(questions: int, gap: float) -> dict[str, list[float]]:
    fair = experiment(one_by_one, questions, seed=1, longer=1)
    ours, theirs = experiment(in_issue_order, questions, seed=2), experiment(in_completion_order, questions, seed=2)
    assert abs(ours[0] - fair[0]) < gap and abs(ours[1] - fair[1]) < 200 * gap
    assert theirs[0] < ours[0] - 0.04 and theirs[1] > ours[1]
    return {"issue order": ours, "completion order": theirs, "lengths equal, one by one": fair}


def test_stopping_is_unbiased_in_length() -> None:
    check_unbiased(400, gap=0.03)


@pytest.mark.prove
def test_stopping_is_unbiased_in_length_full(figures: dict) -> None:
    figures.update(check_unbiased(20_000, gap=0.01))
