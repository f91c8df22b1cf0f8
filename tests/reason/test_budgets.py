"""Whatever a strategy does, it stays within every bound, and its usage is what its trace and the engine count."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.reason.solve import Result
from headrace.spec.budget import Budget
from headrace.spec.events import StepEvent
from reason.toy import TASK, solved, toy_engine, usable

BOUNDS = st.builds(
    Budget,
    tokens=st.none() | st.integers(0, 300),
    prefill=st.none() | st.integers(0, 200),
    flops=st.none() | st.floats(2000, 60000),
    pages=st.none() | st.integers(0, 30),
    calls=st.none() | st.integers(0, 20),
)


def counted(result: Result) -> tuple[int, int]:
    """Drawn and given tokens by the trace's own events."""
    drawn = sum(event.data["drawn"] for event in result.trace.of("extend", "scores"))
    given = sum(event.data["prefill"] for event in result.trace.of("open", "append", "logprobs", "read", "scores"))
    return drawn, given


@pytest.mark.parametrize("name", sorted(usable()))
@settings(max_examples=6, deadline=None)
@given(budget=BOUNDS, seed=st.integers(0, 2**40))
def test_every_strategy_stays_within_every_budget(name: str, budget: Budget, seed: int) -> None:
    stays_within(name, budget, seed)


@pytest.mark.prove
@pytest.mark.parametrize("name", sorted(usable()))
@settings(max_examples=150, deadline=None)
@given(budget=BOUNDS, seed=st.integers(0, 2**40))
def test_every_strategy_stays_within_every_budget_at_length(name: str, budget: Budget, seed: int) -> None:
    stays_within(name, budget, seed)


def stays_within(name: str, budget: Budget, seed: int) -> None:
    with toy_engine() as engine:
        steps: list[StepEvent] = []
        engine.events.listen(steps.append)
        result = solved(engine, name, budget=budget, seed=seed)
        engine.check()
        assert engine.stats()["open_sequences"] == 0, "a sequence was left open"
        usage = result.usage
        for bound, used in (("tokens", "completion"), ("prefill", "prompt"), ("pages", "kv_peak_pages")):
            limit = getattr(budget, bound)
            assert limit is None or usage[used] <= limit, bound
        assert budget.flops is None or usage["flops"] <= budget.flops * (1 + 1e-12)
        assert budget.calls is None or usage["calls"] <= budget.calls
        assert counted(result) == (usage["completion"], usage["prompt"])
        assert sum(event.sampled_tokens for event in steps) == usage["completion"]
        texts = [candidate.text for candidate in result.candidates]
        assert result.text in texts, "the answer comes from a candidate of this run"
        assert result.answer == TASK.answers.extract(result.text)


@pytest.mark.parametrize("name", ["single", "step_beam", "adaptive_best_of_n", "sequential_revision"])
@pytest.mark.parametrize("seconds", [3, 9, 20])
def test_time_is_overrun_by_one_engine_step_at_most(name: str, seconds: float) -> None:
    with toy_engine() as engine:
        now = [0.0]

        def tick(event: StepEvent) -> None:
            now[0] += 1

        engine.events.listen(tick)
        result = solved(engine, name, budget=Budget(seconds=seconds), clock=lambda: now[0])
        assert now[0] <= seconds + 1
        assert result.stopped_by == ("budget:seconds" if now[0] >= seconds else "done")


def test_nested_budgets_never_sum_past_the_parent() -> None:
    for tokens in (1, 7, 50, 101):
        with toy_engine() as engine:
            result = solved(engine, "self_consistency(n=4) & step_beam", budget=Budget(tokens=tokens))
            halves = {True: 0, False: 0}
            for event in result.trace.of("extend"):
                halves[event.node.startswith("0")] += event.data["drawn"]
            assert max(halves.values()) <= tokens // 2 and result.usage["completion"] == sum(halves.values())


def test_a_budget_that_is_met_says_which_and_keeps_the_best_so_far() -> None:
    with toy_engine() as engine:
        free = solved(engine, "best_of_n(n=6)")
        assert free.stopped_by == "done"
        most = free.usage["completion"] - 1
        cut = solved(engine, "best_of_n(n=6)", budget=Budget(tokens=most))
        assert (cut.stopped_by, cut.usage["completion"]) == ("budget:tokens", most)
        assert [c.text for c in cut.candidates[:-1]] == [c.text for c in free.candidates[:-1]]
        assert not cut.candidates[-1].finished
