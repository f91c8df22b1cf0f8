"""P5: stopping looks at issue order, so that long right answers are not voted down by short wrong ones."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import takewhile
from random import Random
from statistics import fmean

import pytest

from headrace.evidence.scripted import END, Chances, scripted_engine
from headrace.reason.agreement import betastop, lead
from headrace.reason.answers import Number
from headrace.reason.solve import Order, solve
from headrace.reason.task import Task
from headrace.reason.votes import vote
from headrace.spec.sampling import Stop

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


def two_answers(right: str) -> Chances:
    """Half of all attempts write `right`, the others 41; both by the same noise, whatever the length."""

    def chances(text: str) -> dict[str, float]:
        tail = text.rpartition("?")[2]
        going = [answer for answer in (right, "b 41") if answer.startswith(tail)]
        letters = Counter(answer[len(tail)] if len(tail) < len(answer) else END for answer in going)
        return {letter: count / len(going) for letter, count in letters.items()}

    return chances


def test_the_strategy_stops_after_the_same_attempts_however_long_they_are() -> None:
    task = Task("6 * 7 = ?", Number(), ending=Stop(tokens=80), chat=False)

    def stopped(right: str) -> list[tuple[str | None, int]]:
        with scripted_engine(two_answers(right)) as engine:
            orders = [Order("adaptive_consistency(n=16, wave=2, confidence=0.8)", seed=seed) for seed in range(12)]
            results = [asyncio.run(solve(engine, task, order)) for order in orders]
        return [(result.answer, len(result.candidates)) for result in results]

    short = stopped("a 42")
    assert stopped("a" + " " * 60 + "42") == short
    assert {answer for answer, _ in short} == {"41", "42"} and len({count for _, count in short}) > 2


def finished_prefix(finished: Sequence[bool]) -> int:
    """How many samples from the first issued on are finished without a gap."""
    return sum(1 for _ in takewhile(bool, finished))


def stop_after(answers: Sequence[str]) -> int | None:
    """After how many of the answers the rule stops; None if it goes on."""
    stops = (place for place in range(1, len(answers) + 1) if betastop(Counter(answers[:place]).values()))
    return next(stops, None)


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
