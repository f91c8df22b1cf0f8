"""The grammar of strategies: what is refused before anything runs, and what joined ones share."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from headrace.reason.intervals import wilson
from headrace.reason.purse import Purse
from headrace.reason.solve import replay
from headrace.reason.strategy import parse
from headrace.reason.view import Tree
from headrace.spec.budget import Budget
from headrace.spec.errors import InvalidRequest
from headrace.spec.reasoning import Score
from headrace.spec.sampling import Stop
from reason.toy import TASK, solved, toy_engine, usable


@pytest.mark.parametrize(
    "text",
    [
        "",
        "single | ",
        "single(3)",
        "single(**{'n': 3})",
        "self_consistency(n={[]: 1})",
        "self_consistency(n=0)",
        "self_consistency(n=1000000000)",
        "self_consistency(n=True)",
        "step_beam(width=0)",
        "dvts(expand=0)",
        "deepconf(window=0)",
        "deepconf(keep=2.0)",
        "early_prune(keep=1e400)",
        "rebase(temperature=0)",
        "smc(method='x')",
        "smc(target='x')",
        "smc(target=[])",
        "|".join(["single"] * 3000),
        "|".join(["single"] * 140) + "|",
        "(" * 300 + "single" + ")" * 300,
        "-" * 900 + "1",
        "single * 0",
        "single * 1000000",
        "single * 2.0",
        "single * True",
        "3 * single",
        "(single * 9 | smc) * 9",
    ],
)
def test_what_cannot_be_run_is_refused_before_it_runs(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse(text)


@pytest.mark.parametrize(
    "text",
    ["(single | smc) & dvts", "single | (smc & dvts)", "single & (smc & dvts)", "(single | smc) * 3", "smc | dvts * 3"],
)
def test_a_plan_is_written_as_it_is_read(text: str) -> None:
    assert parse(str(parse(text))) == parse(text)


@pytest.mark.parametrize("operator", ["|", "&"])
@pytest.mark.parametrize("name", ["step_beam", "rebase", "lookahead", "adaptive_consistency(confidence=1)", "smc"])
def test_a_search_has_all_its_places_behind_another(name: str, operator: str) -> None:
    with toy_engine() as engine:
        alone = solved(engine, name)
        both = solved(engine, f"self_consistency(n=9) {operator} {name}")
    assert len(both.candidates) == 9 + len(alone.candidates)


@pytest.mark.parametrize("name", sorted(usable()))
def test_every_strategy_runs_behind_another(name: str) -> None:
    with toy_engine() as engine:
        found = solved(engine, f"single | {name}").candidates
    judges = name in {"critique", "rank", "rate"}  # of what there is; they add no attempt
    assert len(found) == 1 if judges else len(found) > 1


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("self_consistency(n=9) & best_of_n(n=9) & rebase", [100, 100, 100]),
        ("self_consistency(n=9) & (best_of_n(n=9) & rebase)", [150, 75, 75]),
        ("(self_consistency(n=1) | best_of_n(n=9)) & rebase", [150, 150]),
    ],
)
def test_joined_plans_share_the_budget_equally(text: str, parts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int | None] = []
    within = Purse.within

    def noted(purse: Purse, budget: Budget) -> Any:
        seen.append(budget.tokens)
        return within(purse, budget)

    monkeypatch.setattr(Purse, "within", noted)
    with toy_engine() as engine:
        solved(engine, text, budget=Budget(tokens=300))
    leaves = [seen[0], *seen[2:]] if "& (" in text else seen
    assert leaves == parts and str(parse(text)) == text


def test_votes_without_scores_count_beside_scored_ones() -> None:
    assert parse("self_consistency & best_of_n").rule != "weighted"  # type: ignore[union-attr]
    with toy_engine() as engine:
        result = solved(engine, "self_consistency(n=9) & best_of_n(n=1)")
    answers = [candidate.answer for candidate in result.candidates if candidate.answer]
    assert answers.count(result.answer) == max(map(answers.count, answers))


@pytest.mark.parametrize("name", ["early_prune", "deepconf", "probe_until_sure", "self_consistency", "step_beam"])
def test_no_attempt_is_longer_than_the_task_allows(name: str) -> None:
    with toy_engine() as engine:
        result = solved(engine, name, replace(TASK, ending=Stop(tokens=21)))
    assert max(c.tokens for c in result.candidates if c.origin != "probe") <= 21


def test_the_interval_of_weighted_particles_is_that_of_their_effective_number() -> None:
    with toy_engine() as engine:
        result = solved(engine, "smc(n=8, threshold=0)", replace(TASK, ending=Stop(tokens=8)))
    weights = [candidate.weight for candidate in result.candidates]
    effective = sum(weights) ** 2 / sum(weight * weight for weight in weights)
    assert effective < 7
    assert result.interval == pytest.approx(wilson(result.confidence * effective, effective))


def test_one_attempt_agrees_with_itself_and_its_interval_says_how_little_that_is() -> None:
    with toy_engine() as engine:
        result = solved(engine, "single")
    assert result.answer is not None and result.confidence == 1.0
    assert result.interval == pytest.approx((0.2065, 1.0), abs=1e-4)


@pytest.mark.parametrize("name", ["smc", "deepconf", "self_consistency(n=3) & best_of_n(n=3)"])
@pytest.mark.parametrize("seed", range(6))
def test_the_tree_marks_the_answer_that_was_given(name: str, seed: int) -> None:
    with toy_engine() as engine:
        result = solved(engine, name, seed=seed)
    best = Tree.of(result.trace).best
    assert result.text in [candidate.text for candidate in result.candidates if candidate.node == best]


@pytest.mark.parametrize("scores", [[], [0.5], [float("nan")] * 3, [0.5] * 4])
def test_scores_that_are_not_one_number_each_are_refused(scores: list[float]) -> None:
    class Odd:
        name, kind, sound, oracle = "odd", "outcome", False, False

        async def score(self, items: list) -> list[Score]:
            return [Score(value) for value in scores]

    with toy_engine() as engine, pytest.raises(InvalidRequest):
        solved(engine, "best_of_n(n=3)", scorer=Odd())


def test_a_revision_that_does_not_fit_the_context_keeps_the_attempts_before_it() -> None:
    with toy_engine() as engine:
        whole = replace(TASK, ending=Stop(tokens=engine.context - 60))
        result = solved(engine, "sequential_revision(rounds=3)", whole)
        engine.check()
        assert engine.stats()["open_sequences"] == 0
    assert result.candidates[0].text and not result.candidates[-1].text


def test_a_joined_plan_is_replayed_as_it_ran() -> None:
    with toy_engine() as engine:
        result = solved(engine, "(self_consistency(n=2) | single) & best_of_n(n=2)")
    again = asyncio.run(replay(result.trace))
    assert (again.answer, again.trace_id) == (result.answer, result.trace_id)


@pytest.mark.parametrize("name", ["step_best_of_n", "step_beam", "self_consistency(n=4)", "rewind_first_bad"])
def test_a_repeated_plan_spends_its_budget(name: str) -> None:
    with toy_engine() as engine:
        once = solved(engine, name)
        tokens = 3 * once.usage["completion"]
        many = solved(engine, f"{name} * 99", budget=Budget(tokens=tokens))
        twice = solved(engine, f"{name} * 2")
    assert many.usage["completion"] == tokens and many.stopped_by == "budget:tokens"
    assert twice.stopped_by == "done" and len(twice.candidates) == 2 * len(once.candidates)
    assert parse(f"{name} * 2").rule == parse(name).rule and parse(f"{name} * 2").needs == parse(name).needs
    assert asyncio.run(replay(many.trace)).trace_id == many.trace_id
