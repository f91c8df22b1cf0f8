"""Strategies that need a task's structure keep the promises of all others: budgets, resuming, replay."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.evidence.scripted import END, scripted_engine
from headrace.reason.scorers.judge import Judge
from headrace.reason.solve import Order, Result, replay, solve
from headrace.reason.strategy import strategies
from headrace.reason.task import Task
from headrace.reason.tasks import lettered, sets, worlds
from headrace.reason.worked import Examples, Worked
from headrace.spec.budget import Budget
from headrace.spec.errors import InvalidRequest
from headrace.spec.sampling import Sampling, Stop
from headrace.spec.trace import Trace

KNOWN = Examples([Worked("What is 3 + 4?", ("7", "8", "9", "6"), "A", "3 and 4 make 7.")])
WORLD = worlds.world(3, depth=2, distractors=8).posed.task
SET = sets.invented_word(1).task
TASKS: dict[str, Task] = {
    "medprompt(n=3)": lettered.question(2, examples=KNOWN).task,
    "likeliest_choice": SET,
    "thinksum": SET,
    "cop(n=2)": WORLD,
    "stepwise_selection": WORLD,
}
LETTERS = "123 ,ABCD\n" + END


def mumbling(text: str) -> Mapping[str, float]:
    """Depends on every character so far."""
    digest = hashlib.sha256(text.encode()).digest()
    return {letter: 1 + value for letter, value in zip(LETTERS, digest, strict=False)}


def solved(name: str, budget: Budget, **how) -> Result:
    task = replace(TASKS[name], chat=False, ending=Stop(tokens=30))
    with scripted_engine(mumbling) as engine:
        order = Order(name, budget, seed=7, sampling=Sampling(temperature=1.0), **how)
        found = asyncio.run(solve(engine, task, order))
        engine.check()
        assert engine.stats()["open_sequences"] == 0
        return found


def told(result: Result) -> dict:
    """All but what depends on what ran at the same time: time, the cache, pages that looks held together."""
    untold = ("seconds", "cached")
    usage = {name: value for name, value in result.usage.items() if name not in untold}
    return result.as_json() | {"usage": usage}


def test_every_structured_strategy_is_here() -> None:
    needy = {name for name, found in strategies().items() if found.needs - {"scorer"}}
    assert needy == {name.partition("(")[0] for name in TASKS}


@pytest.mark.parametrize("name", TASKS)
def test_bounds_hold_wherever_they_fall(name: str) -> None:
    free = solved(name, Budget())
    assert free.stopped_by == "done" and free.usage["prompt"] > 0
    for share in (0.0, 0.3, 0.6, 0.9):
        for bound, used in (("tokens", "completion"), ("prefill", "prompt"), ("pages", "kv_peak_pages")):
            most = int(share * free.usage[used])
            found = solved(name, Budget(**{bound: most}))
            assert found.usage[used] <= most and found.text in [candidate.text for candidate in found.candidates]


@pytest.mark.parametrize("name", TASKS)
def test_killed_runs_go_on_and_traces_replay(name: str, tmp_path: Path) -> None:
    path, budget = tmp_path / "trace.jsonl", Budget(tokens=60)
    whole = solved(name, budget, trace=path)
    meta = TASKS[name].meta
    again = asyncio.run(replay(Trace.load(path), TASKS[name].answers, meta))
    assert told(again) == told(whole)
    with pytest.raises(InvalidRequest, match="give it as meta"):
        asyncio.run(replay(Trace.load(path), TASKS[name].answers))
    lines = path.read_text().splitlines(keepends=True)
    for kept in {1, len(lines) // 3, 2 * len(lines) // 3, len(lines) - 1}:
        path.write_text("".join(lines[:kept]))
        assert told(solved(name, budget, trace=path, resume=True)) == told(whole)


@pytest.mark.parametrize("name", ["self_consistency(n=2)", "step_best_of_n", "critical_questions", "fuse"])
def test_a_question_that_is_not_paid_for_gets_nothing(name: str) -> None:
    """Not even what costs less than it: a fork, a forced word, a score behind it."""
    TASKS[name] = replace(WORLD, meta={})
    found = solved(name, Budget(prefill=100, pages=9), scorer=Judge())
    del TASKS[name]
    assert (found.usage["prompt"], found.usage["completion"], found.usage["kv_peak_pages"]) == (0, 0, 0)
    assert found.answer is None and found.stopped_by == "budget:prefill"


def test_a_task_without_the_structure_is_refused() -> None:
    with scripted_engine(mumbling) as engine, pytest.raises(InvalidRequest, match="needs a task with"):
        asyncio.run(solve(engine, replace(WORLD, chat=False, meta={}), Order("cop")))
