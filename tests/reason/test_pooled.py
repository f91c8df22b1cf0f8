"""What is recomputed from a pool is what the strategy itself would have made of the same attempts."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.reason.answers import Text
from headrace.reason.choose import best_of
from headrace.reason.evaluation.curves import curves, scorer_quality
from headrace.reason.evaluation.pooled import Question, needed, orders_of, outcomes, pick, servable
from headrace.reason.evaluation.store import Sample, Scoring
from headrace.reason.statistics import best_at_k, pass_at_k
from headrace.reason.strategy import parse
from headrace.spec.budget import Budget
from headrace.spec.errors import InvalidRequest
from headrace.spec.reasoning import Candidate
from reason.toy import solved, toy_engine

ANSWERS = st.sampled_from(["a", "b", "c", None])
SCORES = st.sampled_from([0.0, 0.25, 0.5, 1.0])
DRAWS = st.lists(st.tuples(ANSWERS, SCORES, st.integers(1, 40)), min_size=1, max_size=8)
RULES = st.sampled_from(["first", "vote", "weighted", "score"])


def pool(draws: list[tuple[str | None, float, int]], right: str = "a") -> Question:
    samples = [
        Sample(
            "q", "", "{}", k, 0, "right" if answer == right else "unparsed" if answer is None else "wrong", answer, "",
            None, tokens, 20, 20, 0, 0, -(-(20 + tokens) // 16), 1.0, 0.5, "done", False, False,
        )
        for k, (answer, _, tokens) in enumerate(draws)
    ]  # fmt: skip
    scorings = [Scoring("q", k, "judge", score, 2, 13, 1, 1.0, 0.25) for k, (_, score, _) in enumerate(draws)]
    return Question.of("q", samples, Text(), scorings)


@given(DRAWS, RULES)
def test_the_pick_is_that_of_the_run(draws, rule) -> None:
    question = pool(draws)
    candidates = [Candidate(k, "", "", answer, True, score) for k, (answer, score, _) in enumerate(draws)]
    best = best_of(candidates, rule, Text())
    assert best is not None and pick(rule, question, range(len(draws))) == best.id


@given(DRAWS, st.integers(1, 4))
def test_the_mean_over_all_orders_is_the_exact_expectation(draws, k) -> None:
    draws = draws[:5]
    k = min(k, len(draws))
    question = pool(draws)
    orders = np.array(list(permutations(range(len(draws)))))
    rows = {row["k"]: row for row in curves([question], scored=True)}
    right = [sample.kind == "right" for sample in question.samples]
    assert mean_right(f"best_of_n(n={k})", question, orders) == pytest.approx(best_of_k(question, right, k))
    assert mean_right("single", question, orders) == pytest.approx(pass_at_k(len(right), sum(right), 1))
    if k in rows:
        assert rows[k]["pass"] == pytest.approx(pass_at_k(len(right), sum(right), k))
        assert mean_right(f"self_consistency(n={k})", question, orders) == pytest.approx(rows[k]["maj"])


def best_of_k(question: Question, right: list[bool], k: int) -> float:
    """An unparsed sample is never chosen before a parsed one, whatever its score."""
    scores = [question.score(k) + (2.0 if s.answer is not None else 0.0) for k, s in enumerate(question.samples)]
    return best_at_k(scores, right, k)


def mean_right(strategy: str, question: Question, orders: np.ndarray) -> float:
    found = outcomes(parse(strategy), question, Budget(), orders)  # type: ignore[arg-type]
    return sum(one.kind == "right" for one in found) / len(found)


@given(DRAWS, st.integers(0, 120))
def test_no_budget_is_passed_and_what_does_not_fit_is_not_half_used(draws, bound) -> None:
    question = pool(draws)
    orders = orders_of(len(draws), 3, 6)
    for name in ("single", f"self_consistency(n={len(draws)})", f"weighted_vote(n={len(draws)})"):
        for one, order in zip(outcomes(parse(name), question, Budget(tokens=bound), orders), orders, strict=True):  # type: ignore[arg-type]
            assert one.tokens <= bound
            first = question.samples[int(order[0])].tokens + 2 * name.startswith("weighted")
            assert (one.kind == "budget" and one.tokens == 0) == (first > bound)


def test_costs_are_those_of_forks_of_one_prompt() -> None:
    question = pool([("a", 0.5, 10), ("b", 0.5, 30), ("a", 0.5, 12)])
    (vote,) = outcomes(parse("self_consistency(n=3)"), question, Budget(), orders_of(3, 0, 1))  # type: ignore[arg-type]
    assert (vote.tokens, vote.prefill, vote.share) == (52, 20, 1.5)
    assert vote.pages == 1 + (2 - 1) + (4 - 1) + (2 - 1), "the one full page of the prompt is shared"
    (best,) = outcomes(parse("best_of_n(n=3)"), question, Budget(), orders_of(3, 0, 1))  # type: ignore[arg-type]
    assert (best.tokens, best.prefill, best.share) == (58, 20 + 3 * 13, 2.25), "a scored strategy pays for its scorer"
    assert best.pages == vote.pages + 3
    bound = Budget(tokens=41)
    assert [
        outcomes(parse(name), question, bound, orders_of(3, 0, 1))[0].tokens  # type: ignore[arg-type]
        for name in ("self_consistency(n=3)", "best_of_n(n=3)")
    ] == [40, 12]
    assert outcomes(parse("best_of_n(n=3)"), replace(question, scorings=()), bound, orders_of(3, 0, 1))[0].tokens == 40  # type: ignore[arg-type]


def test_adaptive_consistency_stops_where_the_run_did() -> None:
    with toy_engine() as engine:
        run = solved(engine, "adaptive_consistency(n=12, wave=2, confidence=0.6)", seed=5)
    taken = len(run.candidates)
    assert 2 <= taken < 12, "the run stopped early"
    draws = [(c.answer, 0.0, c.tokens) for c in run.candidates] + [("a", 0.0, 1)] * (12 - taken)
    question = pool(draws, right=run.answer or "")
    plan = parse("adaptive_consistency(n=12, wave=2, confidence=0.6)")
    (found,) = outcomes(plan, question, Budget(), orders_of(12, 0, 1))  # type: ignore[arg-type]
    assert found.tokens == run.usage["completion"] and found.kind == "right"


def test_what_a_pool_can_serve() -> None:
    served = {"single", "self_consistency(n=4)", "best_of_n", "weighted_vote", "adaptive_consistency(n=6)"}
    assert all(servable(parse(name), Budget(tokens=5)) for name in served)
    others = {"step_beam", "single & single", "self_consistency(n=2) | sequential_revision"}
    assert not any(servable(parse(name), Budget()) for name in others)
    assert not servable(parse("single"), Budget(tokens=5, seconds=1))
    assert [needed(parse(name)) for name in ("single", "best_of_n", "adaptive_consistency(n=6)")] == [1, 8, 6]  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="--samples 9"):
        outcomes(parse("best_of_n(n=9)"), pool([("a", 0.0, 1)]), Budget(), orders_of(1))  # type: ignore[arg-type]


def test_the_scorer_is_judged_by_its_own_pool() -> None:
    sound = pool([("a", 1.0, 1), ("b", 0.0, 1), ("a", 1.0, 1)])
    blind = pool([("a", 0.5, 1), ("b", 0.5, 1)])
    quality = [scorer_quality([question]) for question in (sound, blind)]
    assert [one["auc"] for one in quality if one] == [1.0, 0.5]
    assert scorer_quality([pool([("a", 0.5, 1)])]) is None, "all right: no AUC"
