"""A run that was killed at any event goes on to the same result; a whole trace gives it without a model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.engine.engine import Engine
from headrace.reason.answers import Number
from headrace.reason.scorers.judge import Judge
from headrace.reason.solve import Result, replay
from headrace.reason.task import Task
from headrace.spec.budget import Budget
from headrace.spec.errors import InvalidRequest
from headrace.spec.options import EngineOptions
from headrace.spec.sampling import Sampling, Stop
from headrace.spec.trace import Trace
from reason.toy import ORDER, TASK, TextScorer, solved, toy_engine, usable

NAMES = sorted(usable())


def told(result: Result) -> dict:
    """Everything but the time and what a cache happened to hold."""
    usage = {name: value for name, value in result.usage.items() if name not in ("seconds", "cached")}
    return result.as_json() | {"usage": usage}


def done(trace: Trace) -> list[str]:
    """What is in a trace, without the order in which it happened to end."""
    return sorted(json.dumps(event[1:]) for event in trace.events if event.kind != "result")


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), tokens=st.none() | st.integers(20, 200))
def test_a_killed_run_goes_on_to_the_same_result(name: str, data, tokens: int | None, tmp_path: Path) -> None:
    with toy_engine() as engine:
        scorer = data.draw(st.sampled_from([TextScorer(), Judge()]))
        goes_on(engine, name, data, tmp_path / "trace.jsonl", TASK, Budget(tokens=tokens), scorer=scorer)


@pytest.mark.prove
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), tokens=st.none() | st.integers(20, 200))
def test_a_killed_run_goes_on_to_the_same_result_at_length(name: str, data, tokens, tmp_path: Path) -> None:
    with toy_engine() as engine:
        scorer = data.draw(st.sampled_from([TextScorer(), Judge()]))
        goes_on(engine, name, data, tmp_path / "trace.jsonl", TASK, Budget(tokens=tokens), scorer=scorer)


@pytest.fixture(scope="module")
def native(smollm2: Path) -> Iterator[Engine]:
    with Engine.load(smollm2, EngineOptions(state_memory=256, threads=1)) as engine:
        yield engine


@pytest.mark.prove
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_killed_run_goes_on_bit_for_bit_on_native(name: str, data, native: Engine, tmp_path: Path) -> None:
    task = Task("What is 12 + 7? Think step by step.", Number(), ending=Stop(tokens=60))
    goes_on(native, name, data, tmp_path / "trace.jsonl", task, Budget(tokens=250), scorer=Judge())


def goes_on(engine: Engine, name: str, data, path: Path, task: Task, budget: Budget, **how) -> None:
    """Runs, tears the trace anywhere, resumes with a cold cache: the same result and the same events."""
    path.unlink(missing_ok=True)
    whole = solved(engine, name, task, budget=budget, trace=path, **how)
    lines = path.read_text().splitlines(keepends=True)
    kept = data.draw(st.integers(1, len(lines) - 1))
    torn = int(data.draw(st.floats(0, 0.9)) * len(lines[kept]))
    path.write_text("".join(lines[:kept]) + lines[kept][:torn])
    engine.clear_cache()
    again = solved(engine, name, task, budget=budget, trace=path, resume=True, **how)
    engine.check()
    assert engine.stats()["open_sequences"] == 0
    assert told(again) == told(whole)
    assert not path.with_name("trace.jsonl.part").exists()
    assert done(Trace.load(path)) == done(whole.trace)


@pytest.mark.parametrize("name", NAMES)
def test_a_trace_gives_its_result_without_a_model(name: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    with toy_engine() as engine:
        whole = solved(engine, name, budget=Budget(tokens=150), trace=path)
    again = asyncio.run(replay(Trace.load(path)))
    assert told(again) == told(whole)


def test_a_trace_of_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    with toy_engine() as engine:
        solved(engine, "self_consistency(n=3)", trace=path)
        for how in ({"seed": 12}, {"budget": Budget(tokens=9)}, {"sampling": Sampling(temperature=0.5)}):
            with pytest.raises(InvalidRequest, match="resume it as it began"):
                solved(engine, "self_consistency(n=3)", trace=path, resume=True, **how)
        with pytest.raises(InvalidRequest, match="resume it as it began"):
            solved(engine, "self_consistency(n=4)", trace=path, resume=True)


CLOSE = (Sampling(1.2), Sampling(1.2, top_k=1), Sampling(1.2, top_p=0.5), Sampling(1.2, logit_bias={3: 9.0}))


@pytest.mark.parametrize("drawn", CLOSE, ids=str)
def test_a_trace_of_other_sampling_is_refused(drawn: Sampling, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    with toy_engine() as engine:
        whole = solved(engine, "self_consistency(n=3)", trace=path, sampling=drawn)
        for other in CLOSE:
            if other != drawn:
                with pytest.raises(InvalidRequest, match=r"sampling.*resume it as it began"):
                    solved(engine, "self_consistency(n=3)", trace=path, resume=True, sampling=other)
        assert told(solved(engine, "self_consistency(n=3)", trace=path, resume=True, sampling=drawn)) == told(whole)
    assert told(asyncio.run(replay(Trace.load(path)))) == told(whole)
    assert ("sampling" in whole.trace.header) == (drawn != Sampling(1.2)), "a trace kept so far is of plain sampling"


def test_a_trace_that_ends_early_says_so_without_a_model(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    with toy_engine() as engine:
        solved(engine, "self_consistency(n=3)", trace=path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]))
    with pytest.raises(InvalidRequest, match="no model is loaded"):
        asyncio.run(replay(Trace.load(path)))


def test_the_same_seed_gives_the_same_tree_beside_other_work() -> None:
    with toy_engine() as engine:
        alone = solved(engine, "step_beam")

        async def crowded() -> Result:
            from headrace.reason.solve import solve

            others = [solve(engine, TASK, replace(ORDER, seed=seed, strategy="rebase")) for seed in range(4)]
            found = await asyncio.gather(solve(engine, TASK, replace(ORDER, strategy="step_beam")), *others)
            return found[0]

        assert told(asyncio.run(crowded())) == told(alone)
        assert solved(engine, "step_beam", seed=12).trace_id != alone.trace_id
