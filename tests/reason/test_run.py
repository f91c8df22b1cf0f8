"""Runs whose scorer has verbs of its own, whose engine fails, whose prompts are odd."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headrace.engine.engine import Engine
from headrace.reason.account import Account, Amount
from headrace.reason.evaluation.clock import SharedClock
from headrace.reason.evaluation.filling import How, Job, carried_out
from headrace.reason.scorers.judge import Judge
from headrace.reason.solve import replay
from headrace.reason.together import together
from headrace.spec.budget import Budget
from headrace.spec.errors import EngineStopped, Overloaded, PagesExhausted
from headrace.spec.events import StepEvent
from headrace.spec.reasoning import Score
from headrace.spec.trace import Trace
from reason.toy import TASK, solved, toy_engine, usable
from reason.toy_items import toy_items


@pytest.mark.parametrize("budget", [Budget(prefill=100), Budget(pages=9), Budget(flops=20000.0), Budget(calls=2)])
def test_a_judge_that_meets_a_bound_does_not_wait_for_its_own_reservation(budget: Budget) -> None:
    (bound,) = (name for name in budget.__slots__ if getattr(budget, name) is not None)
    with toy_engine() as engine:
        result = solved(engine, "best_of_n(n=4)", scorer=Judge(), budget=budget)
        assert result.stopped_by == f"budget:{bound}" and len(result.candidates) == 4


@pytest.mark.parametrize("strategy", ["self_consistency(n=3)", "mcts(simulations=2)", "deepconf(n=3)"])
@pytest.mark.parametrize("budget", [Budget(prefill=1), Budget(pages=0)])
def test_a_prompt_beyond_the_budget_ends_the_run_and_leaves_nothing_open(strategy: str, budget: Budget) -> None:
    with toy_engine() as engine:
        result = solved(engine, strategy, budget=budget, scorer=Judge())
        engine.check()
        assert engine.stats()["open_sequences"] == 0
        assert result.answer is None and result.stopped_by.startswith("budget:")
        assert result.usage["prompt"] == result.usage["completion"] == 0


@pytest.mark.parametrize("length", [15, 16, 17, 32])
@pytest.mark.parametrize("strategy", ["self_consistency(n=8)", "step_beam"])
def test_the_engine_never_holds_more_pages_than_the_usage_says(strategy: str, length: int) -> None:
    with toy_engine() as engine:
        steps: list[StepEvent] = []
        engine.events.listen(steps.append)
        result = solved(engine, strategy, replace(TASK, question="7" * length), scorer=Judge())
        assert max(event.pages_used for event in steps) <= result.usage["kv_peak_pages"]


def failing(engine: Engine, monkeypatch: pytest.MonkeyPatch, which: Collection[int], error: Exception) -> None:
    """The calls of extend with these numbers, from 1 on, fail; the first is the prompt's."""
    extend, calls = engine._extend, itertools.count(1)

    def called(*how: Any) -> Any:
        if next(calls) in which:
            raise error
        return extend(*how)

    monkeypatch.setattr(engine, "_extend", called)


FULL = Overloaded("Full; try again in a moment.")


@pytest.mark.parametrize("error", [FULL, PagesExhausted("Too long; ask for fewer tokens.")], ids=["full", "pages"])
@pytest.mark.parametrize("budget", [Budget(), Budget(tokens=90)], ids=str)
def test_a_refused_attempt_leaves_the_answer_to_the_others(
    error: Exception, budget: Budget, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path, strategy = tmp_path / "trace.jsonl", "self_consistency(n=6)"
    with toy_engine() as engine:
        alone = solved(engine, strategy)
        failing(engine, monkeypatch, {4}, error)
        result = solved(engine, strategy, budget=budget, trace=path)
        engine.check()
        assert engine.stats()["open_sequences"] == 0
        monkeypatch.undo()
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:-4]))
        again = solved(engine, strategy, budget=budget, trace=path, resume=True)
    (lost,) = (c for c in result.candidates if c.weight == 0)
    assert len(result.candidates) == 6 and (lost.answer, lost.text, lost.finished) == (None, "", False)
    assert result.usage["refused"] == 1 and "refused" not in alone.usage
    assert [event.data["why"] for event in result.trace.of("refused")] == [str(error)]
    if budget == Budget():
        kept = [c.text for c in alone.candidates if c.node != lost.node]
        assert [c.text for c in result.candidates if c is not lost] == kept
    replayed = asyncio.run(replay(Trace.load(path)))
    assert again.trace_id == replayed.trace_id == result.trace_id and again.answer == replayed.answer == result.answer


@pytest.mark.parametrize("name", sorted(usable().keys() - {"smc"}))
def test_every_strategy_ends_where_some_attempts_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = 4 if name in ("fuse", "rank") else 5  # behind the prompt, two attempts and, but for these, a prompt again
    with toy_engine() as engine:
        failing(engine, monkeypatch, range(first, 400, 3), FULL)
        result = solved(engine, f"self_consistency(n=2) & {name}")
        engine.check()
        assert engine.stats()["open_sequences"] == 0
    assert result.text in {c.text for c in result.candidates} and result.usage["refused"]


@pytest.mark.parametrize(
    ("strategy", "which", "error"),
    [
        ("single", {2}, FULL),
        ("self_consistency(n=3)", {2, 3, 4}, FULL),
        ("smc(n=4)", {3}, FULL),
        ("self_consistency(n=6)", {4}, EngineStopped("The engine has stopped; load the model again.")),
    ],
)
def test_with_nothing_left_or_no_engine_or_no_fair_sample_the_run_fails(
    strategy: str, which: set[int], error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "trace.jsonl"
    with toy_engine() as engine:
        failing(engine, monkeypatch, which, error)

        async def seen() -> int:
            with pytest.raises(type(error)):
                await asyncio.to_thread(solved, engine, strategy, budget=Budget(tokens=90), trace=path)
            return len(asyncio.all_tasks())

        assert asyncio.run(seen()) == 1
        engine.check()
        assert engine.stats()["open_sequences"] == 0
        monkeypatch.undo()
        again = solved(engine, strategy, budget=Budget(tokens=90), trace=path, resume=True)
        assert again.trace_id == solved(engine, strategy, budget=Budget(tokens=90)).trace_id


def test_an_evaluation_keeps_no_run_that_lost_an_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    item = toy_items(1)[0]
    with toy_engine() as engine:
        failing(engine, monkeypatch, {4}, FULL)
        job = Job(item, "self_consistency(n=6)", Budget(), 0)
        with pytest.raises(Overloaded):
            asyncio.run(carried_out(engine, job, How(), SharedClock(lambda: 0.0)))


def test_together_ends_the_others_before_it_raises() -> None:
    ended: list[str] = []

    async def fails() -> None:
        raise Overloaded("Full; try again in a moment.")

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("waits")

    with pytest.raises(Overloaded):
        asyncio.run(together([waits(), fails()]))
    assert ended == ["waits"]


def test_a_run_whose_time_ended_between_two_verbs_is_replayed_without_a_clock() -> None:
    class Late:
        now = 0.0

    with toy_engine() as engine:
        late = Late()

        class Slow:
            name, kind, sound, oracle = "slow", "outcome", False, False

            async def score(self, items: list) -> list:
                late.now += 10
                return await Judge().score(items)

        result = solved(
            engine, "adaptive_best_of_n(n=4)", scorer=Slow(), budget=Budget(seconds=5), clock=lambda: late.now
        )
    assert result.stopped_by == "budget:seconds" and len(result.candidates) == 1
    again = asyncio.run(replay(result.trace))
    assert (again.answer, again.stopped_by, again.trace_id) == (result.answer, result.stopped_by, result.trace_id)


def test_a_judge_without_room_in_the_context_scores_nothing_and_the_run_goes_on() -> None:
    with toy_engine() as engine:
        task = replace(TASK, ending=replace(TASK.ending, tokens=None))
        result = solved(engine, "best_of_n(n=2)", task, scorer=Judge(question="7" * engine.context))
        assert [candidate.score for candidate in result.candidates] == [0.0, 0.0]


def test_nothing_is_reserved_after_pages_were_held() -> None:
    async def held() -> Account:
        account = Account(Budget(pages=3), lambda: 0.0)
        amount, _ = await account.reserve(lambda: (Amount(pages=2), None))
        with account.holding(amount.pages):
            assert account.left("pages") == 1
        return account

    account = asyncio.run(held())
    assert account.left("pages") == 3 and account.spend.pages == 2


class Reader:
    """Scores by the mean of all hidden states; remembers how many positions that took."""

    name, kind, sound, oracle = "reader", "self", False, False

    def __init__(self) -> None:
        self.positions = 0

    async def score(self, items) -> list[Score]:
        for item in items:
            assert await item.sequence.read(pool="mean") is not None
            self.positions += len(item.sequence.tokens)
        return [Score(0.5)] * len(items)


def test_a_read_of_all_positions_pays_for_all_of_them() -> None:
    reader = Reader()
    with toy_engine() as engine:
        result = solved(engine, "best_of_n(n=3)", scorer=reader)
    assert result.usage["scorer"]["prompt"] == reader.positions > 30
