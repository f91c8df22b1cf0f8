"""Whatever a strategy does, it stays within every bound, and its usage is what its trace and the engine count."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.canary import CanaryExecutor
from headrace.engine.answer import Answer, Extension
from headrace.engine.engine import Engine
from headrace.engine.sequence import SequenceHandle
from headrace.engine.tasks import Pool
from headrace.reason.node import Node
from headrace.reason.scorers.judge import Judge
from headrace.reason.solve import Result, replay
from headrace.spec.budget import Budget
from headrace.spec.events import StepEvent
from headrace.spec.labels import Label
from headrace.spec.model import PAGE_TOKENS
from headrace.spec.options import EngineOptions
from headrace.spec.reasoning import Score, Scored
from reason.toy import TASK, LetterTokenizer, TextScorer, solved, toy_engine, usable


class Reader:
    """Scores by the mean of all hidden states, between 0 and 1: a look that is computed again as a whole."""

    name, kind, sound, oracle = "reader", "self", False, False

    async def score(self, items: Sequence[Scored]) -> list[Score]:
        found = [await item.sequence.read(pool="mean") for item in items]
        return [Score(0.0 if states is None else (1 + math.tanh(float(states[0]))) / 2) for states in found]


JUDGE = Judge(question="\nIs that right? ")
SCORERS = st.sampled_from([JUDGE, Reader(), TextScorer()])
BOUNDS = st.builds(
    Budget,
    tokens=st.none() | st.integers(0, 300),
    prefill=st.none() | st.integers(0, 1000),
    seconds=st.none() | st.floats(0, 40),
    flops=st.none() | st.floats(2000, 200000),
    pages=st.none() | st.integers(0, 60),
    calls=st.none() | st.integers(0, 20),
)


class Counting(Engine):
    """Has the clock of its own steps, and counts what is handed in.

    `given`: tokens of prompts, appended, scored and read. `known`: tokens of each sequence when work was asked for it.
    """

    def __init__(self) -> None:
        super().__init__(CanaryExecutor(400), LetterTokenizer(), EngineOptions())  # type: ignore[arg-type]
        self.given = self.known = self.works = 0
        self.prompts: Counter[tuple[int, ...]] = Counter()
        self.steps: list[StepEvent] = []
        self.events.listen(self.steps.append)

    def clock(self) -> float:
        return len(self.steps)

    def counted(self, name: str) -> int:
        return sum(getattr(event, name) for event in self.steps)

    def _count(self, given: int, known: Sequence[int]) -> None:
        self.given, self.known, self.works = self.given + given, self.known + sum(known), self.works + len(known)

    def _create(self, handle: SequenceHandle, label: Label, pin: bool) -> None:
        self.prompts[tuple(handle.tokens)] += 1
        self._count(len(handle), [])
        super()._create(handle, label, pin)

    def _append(self, handle: SequenceHandle, tokens: list[int]) -> None:
        self._count(len(tokens), [])
        super()._append(handle, tokens)

    def _extend(self, handle: SequenceHandle, tokens: list[int], *how: Any) -> Extension:
        self._count(0, [len(tokens)])
        return super()._extend(handle, tokens, *how)

    def _score(self, handle: SequenceHandle, length: int, pieces: list[list[int]]) -> Answer[list[list[float]]]:
        self._count(sum(map(len, pieces)), [length + len(piece) - 1 for piece in pieces])
        return super()._score(handle, length, pieces)

    def _read(self, handle: SequenceHandle, index: int, pool: Pool) -> Answer[np.ndarray]:
        self._count(1 if pool == "last" else len(handle), [len(handle)])
        return super()._read(handle, index, pool)


@pytest.mark.parametrize("name", sorted(usable()))
@settings(max_examples=3, deadline=None)
@given(budget=BOUNDS, seed=st.integers(0, 2**40), scorer=SCORERS)
def test_every_strategy_stays_within_every_budget(name: str, budget: Budget, seed: int, scorer: Any) -> None:
    stays_within(name, budget, seed, scorer)


@pytest.mark.prove
@pytest.mark.parametrize("name", sorted(usable()))
@settings(max_examples=150, deadline=None)
@given(budget=BOUNDS, seed=st.integers(0, 2**40), scorer=SCORERS)
def test_every_strategy_stays_within_every_budget_at_length(name: str, budget: Budget, seed: int, scorer: Any) -> None:
    stays_within(name, budget, seed, scorer)


def stays_within(name: str, budget: Budget, seed: int, scorer: Any) -> None:
    with Counting() as engine:
        result = solved(engine, name, budget=budget, seed=seed, scorer=scorer, clock=engine.clock)
        engine.check()
        assert engine.stats()["open_sequences"] == 0, "a sequence was left open"
        keeps_bounds(result, budget, engine.clock())
        counters_agree(result, engine, budget.seconds is not None and engine.clock() >= budget.seconds)
    texts = [candidate.text for candidate in result.candidates]
    assert result.text in texts, "the answer comes from a candidate of this run"
    assert result.answer == TASK.answers.extract(result.text)
    assert told(asyncio.run(replay(result.trace))) == told(result)


def keeps_bounds(result: Result, budget: Budget, now: float) -> None:
    usage = result.usage
    for bound, used in (
        ("tokens", "completion"),
        ("prefill", "prompt"),
        ("pages", "kv_peak_pages"),
        ("calls", "calls"),
    ):
        limit = getattr(budget, bound)
        assert limit is None or usage[used] <= limit, bound
    assert budget.flops is None or usage["flops"] <= budget.flops * (1 + 1e-12)
    assert budget.seconds is None or now <= math.ceil(budget.seconds), "a step began after the end"
    assert result.stopped_by != "budget:seconds" or (budget.seconds is not None and now >= budget.seconds)


def counters_agree(result: Result, engine: Counting, late: bool) -> None:
    """Trace, usage, what the engine was given, and what it counts in its steps."""
    usage = result.usage
    drawn = sum(event.data["drawn"] for event in result.trace.of("extend", "scores"))
    assert drawn == usage["completion"] == engine.counted("sampled_tokens")
    paid = sum(event.data["prefill"] for event in result.trace.of("open", "append", "logprobs", "read", "scores"))
    opened = Counter(tuple(event.data["tokens"]) for event in result.trace.of("open") if event.data["prefill"])
    opened.subtract(engine.prompts)  # above 0: paid, but no verb came; below: not paid, and no step sees it
    unseen = sum(len(prompt) * count for prompt, count in opened.items())
    assert paid == usage["prompt"] == engine.given + unseen
    found = engine.counted("prefill_tokens") + engine.counted("cached_tokens")
    assert found <= engine.known, "a step computed what no verb asked for"
    assert found == engine.known or late, "only time ends work before it is done"
    assert engine.counted("prefill_tokens") <= usage["prompt"] + PAGE_TOKENS * engine.works, "shared tokens come once"


def told(result: Result) -> dict[str, Any]:
    """All but what depends on what ran at the same time: time, the cache, pages that looks held together."""
    untold = ("seconds", "cached", "kv_peak_pages")
    usage = {name: value for name, value in result.usage.items() if name not in untold}
    return result.as_json() | {"usage": usage}


@pytest.mark.parametrize("name", [*sorted(usable()), "step_beam * 9"])
def test_time_is_overrun_by_one_engine_step_at_most(name: str) -> None:
    with Counting() as engine:
        result = solved(engine, name, budget=Budget(seconds=9), scorer=JUDGE, clock=engine.clock)
        engine.check()
        keeps_bounds(result, Budget(seconds=9), engine.clock())


@pytest.mark.parametrize("verb", ["score", "read"])
def test_a_look_that_time_ends_says_nothing_and_is_paid_once_begun(verb: str) -> None:
    class Looks:
        """Two looks of 100 tokens each, which take two steps."""

        name, kind, sound, oracle = "looks", "self", False, False
        began, found = float("inf"), list[object]()

        async def score(self, items: Sequence[Scored]) -> list[Score]:
            self.began = engine.clock()
            for item in items:
                node: Node = item.sequence
                self.found.append(await (node.score(["7" * 100]) if verb == "score" else node.read(pool="mean")))
            return [Score(0.0 if found is None else 1.0) for found in self.found]

    looks = Looks()
    with Counting() as engine:
        task = TASK if verb == "score" else replace(TASK, question="7" * 100)
        late = {"budget": Budget(seconds=1), "clock": lambda: max(engine.clock() - looks.began, 0)}
        result = solved(engine, "best_of_n(n=2)", task, scorer=looks, **late)
        engine.check()
        assert engine.clock() == looks.began + 1
        counters_agree(result, engine, late=True)
    assert looks.found == [None, None] and [candidate.score for candidate in result.candidates] == [0.0, 0.0]
    assert 100 <= result.usage["scorer"]["prompt"] < 200, "the first had begun, the second had not"
    assert result.stopped_by == "budget:seconds" and told(asyncio.run(replay(result.trace))) == told(result)


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
