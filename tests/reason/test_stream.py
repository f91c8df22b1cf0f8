"""A stream of events that nobody reads to its end."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from backends.lora import random_adapter
from headrace.engine.engine import Engine
from headrace.evidence.scripted import AsciiTokenizer
from headrace.evidence.stage import Stage
from headrace.reason.llm import LLM
from headrace.reason.solve import Result
from headrace.spec.options import EngineOptions
from headrace.spec.sampling import Stop
from reason.toy import TASK, toy_engine


def test_closing_a_stream_ends_its_run() -> None:
    with toy_engine() as engine:
        llm = object.__new__(LLM)
        llm.engine = engine
        stream = llm.solve_stream(TASK, "self_consistency(n=6)", seed=3)
        assert next(stream).kind == "run"
        stream.close()
        engine.check()
        assert engine.stats()["open_sequences"] == 0
        whole = list(llm.solve_stream(TASK, "self_consistency(n=6)", seed=3))
        assert isinstance(whole[-1], Result) and len(whole[-1].candidates) == 6


def test_a_stream_can_be_read_inside_a_running_loop() -> None:
    async def inside() -> object:
        with toy_engine() as engine:
            llm = object.__new__(LLM)
            llm.engine = engine
            return list(llm.solve_stream(TASK, "single", seed=3))[-1]

    assert isinstance(asyncio.run(inside()), Result)


def test_a_run_has_the_adapter_that_it_is_given() -> None:
    stage = Stage.tiny()
    spec = stage.executor.spec
    task = replace(TASK, ending=Stop(tokens=12, ignore_eos=True))
    with stage, Engine(stage.executor, AsciiTokenizer(), EngineOptions()) as engine:  # type: ignore[arg-type]
        engine.add_adapter("one", random_adapter(spec, "one", 1, 8))
        llm = object.__new__(LLM)
        llm.engine = engine
        plain, none = (
            llm.solve(task, "single", seed=3),
            llm.solve(task, "single", seed=3, adapter="one", adapter_scale=0),
        )
        adapted = llm.solve(task, "single", seed=3, adapter="one")
        streamed = list(llm.solve_stream(task, "single", seed=3, adapter="one"))[-1]
    assert isinstance(streamed, Result) and adapted.text == streamed.text != plain.text == none.text
    assert adapted.trace.header["adapter"] == ["one", 1.0] and plain.trace.header["adapter"] is None
