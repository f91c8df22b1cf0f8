"""Runs whose scorer has verbs of its own, whose engine fails, whose prompts are odd."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from headrace.reason.account import Account, Amount
from headrace.reason.scorers.judge import Judge
from headrace.reason.solve import replay
from headrace.reason.together import together
from headrace.spec.budget import Budget
from headrace.spec.errors import Overloaded
from headrace.spec.events import StepEvent
from headrace.spec.reasoning import Score
from reason.toy import TASK, solved, toy_engine


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


def test_where_one_attempt_fails_no_other_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with toy_engine() as engine:
        extend, calls = engine._extend, []

        def third_fails(*how: object) -> object:
            calls.append(how)
            if len(calls) == 3:
                raise Overloaded("Full; try again in a moment.")
            return extend(*how)

        monkeypatch.setattr(engine, "_extend", third_fails)

        async def seen() -> int:
            with pytest.raises(Overloaded):
                await asyncio.to_thread(solved, engine, "self_consistency(n=6)", budget=Budget(tokens=90))
            return len(asyncio.all_tasks())

        assert asyncio.run(seen()) == 1
        engine.check()
        assert engine.stats()["open_sequences"] == 0


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
