"""A stream of events that nobody reads to its end."""

from __future__ import annotations

import asyncio

from headrace.reason.llm import LLM
from headrace.reason.solve import Result
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
