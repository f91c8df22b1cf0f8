"""An attempt that is scored later has the very state that it was drawn with: on real kernels, to the last bit."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from headrace.engine.engine import Engine
from headrace.reason.answers import Number
from headrace.reason.evaluate import Design, evaluate
from headrace.reason.evaluation.clock import SharedClock
from headrace.reason.evaluation.filling import How, Job, carried_out
from headrace.reason.evaluation.pooled import ATTEMPT
from headrace.reason.evaluation.store import Key, ScoringKey, Store
from headrace.reason.scorers.judge import Judge
from headrace.reason.task import Task
from headrace.reason.tasks.item import Item
from headrace.spec.budget import Budget
from headrace.spec.options import EngineOptions
from headrace.spec.sampling import Sampling, Stop

TASK = Task("What is 12 + 7? Think step by step.", Number(), ending=Stop(tokens=40))
ITEMS = [Item("sum", TASK, "19"), Item("product", replace(TASK, question="12 times 7?"), "84")]
DRAWS = range(3)


def test_a_later_score_has_the_bits_of_the_live_one(smollm2: Path) -> None:
    how = How(seed=3, sampling=Sampling(temperature=0.8), scorer=Judge(), concurrency=4)
    with Engine.load(smollm2, EngineOptions(state_memory=128, threads=1)) as engine, Store(None, {}) as store:
        jobs = [Job(item, "best_of_n(n=1)", Budget(), draw, Judge()) for item in ITEMS for draw in DRAWS]
        live = [asyncio.run(carried_out(engine, job, how, SharedClock(how.clock))) for job in jobs]
        asyncio.run(evaluate(engine, Design(ITEMS, ("single",), samples=3), replace(how, scorer=None), store))
        engine.clear_cache()
        asyncio.run(evaluate(engine, Design(ITEMS, ("single",), samples=3), how, store))
        engine.check()
        assert engine.stats()["open_sequences"] == 0
        later = [store.scorings[ScoringKey(one.item, one.draw, "judge")] for one in live]
        texts = [store.samples[Key(one.item, ATTEMPT, "{}", one.draw)].text for one in live]
    assert texts == [one.text for one in live]
    assert [one.score for one in later] == [one.score for one in live]
    assert len({one.score for one in later}) == 6
