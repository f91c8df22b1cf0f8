"""How what a verb began ends: cancelled, dropped, awaited from threads and tasks, failed."""

from __future__ import annotations

import asyncio
import threading

import pytest

from engine.verbs import HOT, PROMPT, WAIT, held, made, oracle, stop
from headrace.engine.answer import Extension
from headrace.engine.engine import Engine
from headrace.spec.errors import (
    EngineStopped,
    Overloaded,
    SequenceClosed,
)
from headrace.spec.sampling import Sampling

# -- cancel and drop -----------------------------------------------------------------------------------


def test_cancel_ends_an_extend_at_the_next_step(engine: Engine) -> None:
    sequence = engine.open_now(PROMPT, seed=3)
    extension = sequence.extend(stop(400), HOT)
    next(iter(extension))
    extension.cancel()
    step = extension.result(WAIT)
    assert step.finish_reason == "cancelled" and 1 <= len(step.token_ids) < 400
    assert sequence.tokens == PROMPT + step.token_ids == PROMPT + oracle(sequence, PROMPT, len(step.token_ids))
    more = sequence.extend(stop(3), HOT).result(WAIT).token_ids
    assert more == oracle(sequence, PROMPT + step.token_ids, 3)


def test_a_late_cancel_does_not_hit_the_next_extend(engine: Engine) -> None:
    sequence = engine.open_now(PROMPT, seed=3)
    first = sequence.extend(stop(1), HOT)
    first.result(WAIT)
    go = threading.Event()
    entered = held(engine, go)
    second = sequence.extend(stop(5), HOT)
    assert entered.wait(WAIT)
    assert first._cancel is not None
    first._cancel()  # as from a thread that saw `first` unfinished a moment ago
    go.set()
    assert second.result(WAIT).finish_reason == "length"


def test_drop_during_an_extend_frees_everything_within_a_step(engine: Engine) -> None:
    go = threading.Event()
    entered = held(engine, go)
    sequence = engine.open_now([1] * 300, seed=3)
    extension = sequence.extend(stop(100), HOT)
    assert entered.wait(WAIT)
    before = engine.stats()["steps"]
    sequence.drop()
    go.set()
    assert extension.result(WAIT).finish_reason == "cancelled"
    engine.check()
    assert engine.stats()["steps"] <= before + 1
    assert engine.stats()["pages_used"] == 0 and engine.stats()["open_sequences"] == 0


def test_a_with_block_drops(engine: Engine) -> None:
    with engine.open_now(PROMPT) as sequence:
        sequence.extend(stop(2)).result(WAIT)
    with pytest.raises(SequenceClosed):
        sequence.mark()

    async def go() -> None:
        async with await engine.open(PROMPT) as sequence:
            await sequence.extend(stop(2))
        with pytest.raises(SequenceClosed):
            sequence.mark()

    asyncio.run(go())
    engine.check()
    assert engine.stats()["open_sequences"] == 0


# -- threads and asyncio -------------------------------------------------------------------------------


def test_threads_and_asyncio_at_once(engine: Engine) -> None:
    found: dict[int, bool] = {}

    def in_thread(seed: int) -> None:
        with engine.open_now(PROMPT, seed=seed) as sequence:
            expected = oracle(sequence, PROMPT, 15)
            found[seed] = [token.id for token in sequence.extend(stop(15), HOT)] == expected

    async def in_task(seed: int) -> None:
        async with await engine.open(PROMPT, seed=seed) as sequence:
            expected = oracle(sequence, PROMPT, 15)
            extension = sequence.extend(stop(15), HOT)
            ids = [token.id async for token in extension]
            found[seed] = ids == expected == (await extension).token_ids

    async def tasks() -> None:
        await asyncio.gather(*(in_task(seed) for seed in range(100, 112)))

    threads = [threading.Thread(target=in_thread, args=(seed,)) for seed in range(6)]
    threads.append(threading.Thread(target=lambda: asyncio.run(tasks())))
    for thread in threads:
        thread.start()
    asyncio.run(tasks())
    for thread in threads:
        thread.join(WAIT)
    assert len(found) == 18 and all(found.values())


def test_extend_many_keeps_order(engine: Engine) -> None:
    async def go() -> None:
        kids = (await engine.open(PROMPT, seed=3)).fork(5)
        steps = await engine.extend_many(kids, stop(9), HOT)
        assert [s.token_ids for s in steps] == [oracle(k, PROMPT, 9) for k in kids]

    asyncio.run(go())


def cancelled_while(engine: Engine, begin) -> None:
    """Cancels a task that waits for `begin(sequences)`; nothing may go on after the step under way."""
    go = threading.Event()
    entered = held(engine, go)
    sequences = [engine.open_now([i + 1] * 40, seed=i) for i in range(3)]

    async def main() -> None:
        task = asyncio.create_task(begin(sequences))
        await asyncio.to_thread(entered.wait, WAIT)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    before = engine.stats()["steps"]
    go.set()
    engine.check()
    stats = engine.stats()
    assert stats["running"] == stats["waiting"] == 0 and stats["steps"] <= before + 1
    for sequence in sequences:
        sequence.drop()


async def consume(extension: Extension) -> None:
    async for _ in extension:
        pass


async def wait_for(answer) -> None:
    await answer


def test_a_cancelled_task_cancels_the_extend_it_awaits(engine: Engine) -> None:
    cancelled_while(engine, lambda s: wait_for(s[0].extend(stop(400), HOT)))


def test_a_cancelled_task_cancels_the_extend_it_iterates(engine: Engine) -> None:
    cancelled_while(engine, lambda s: consume(s[0].extend(stop(400), HOT)))


def test_a_cancelled_task_cancels_its_whole_frontier(engine: Engine) -> None:
    cancelled_while(engine, lambda s: engine.extend_many(s, stop(400), HOT))


def test_a_cancelled_task_cancels_its_read(engine: Engine) -> None:
    cancelled_while(engine, lambda s: wait_for(s[0].read(pool="all")))


def test_a_refused_extend_cancels_its_frontier() -> None:
    engine, _ = made(queue=2, running=1)
    go = threading.Event()
    with engine:
        entered = held(engine, go)
        sequences = [engine.open_now([i + 1], seed=i) for i in range(5)]
        blocker = sequences[4].extend(stop(1))
        assert entered.wait(WAIT)
        with pytest.raises(Overloaded):
            asyncio.run(engine.extend_many(sequences[:4], stop(400), HOT))
        go.set()
        blocker.result(WAIT)
        engine.check()
        assert engine.stats()["running"] == engine.stats()["waiting"] == 0


def test_a_closed_event_loop_harms_nobody(engine: Engine) -> None:
    go = threading.Event()
    entered = held(engine, go)
    sequence = engine.open_now(PROMPT, seed=3)
    extension = sequence.extend(stop(50), HOT)

    async def look_and_leave() -> None:
        task = asyncio.create_task(anext(extension.__aiter__()))
        await asyncio.to_thread(entered.wait, WAIT)
        extension._cancel, kept = None, extension._cancel
        task.cancel()
        await asyncio.wait([task])
        extension._cancel = kept

    asyncio.run(look_and_leave())
    go.set()
    assert len(extension.result(WAIT).token_ids) == 50


# -- failures ------------------------------------------------------------------------------------------


def test_a_failing_draw_fails_one_request_alone(engine: Engine) -> None:
    good, bad = engine.open_now(PROMPT, seed=1), engine.open_now([*PROMPT, 1], seed=2)
    bad.extend(stop(2), HOT).result(WAIT)
    before = bad.tokens
    sampling = Sampling(temperature=1.5)
    object.__setattr__(sampling, "logit_bias", {10**9: 1.0})
    engine._check_ids, kept = lambda ids: list(ids), engine._check_ids  # type: ignore[method-assign,assignment]
    running = good.extend(stop(20), HOT)
    with pytest.raises(IndexError):
        bad.extend(stop(20), sampling).result(WAIT)
    engine._check_ids = kept  # type: ignore[method-assign]
    assert running.result(WAIT).token_ids == oracle(good, PROMPT, 20)
    assert bad.tokens == before
    assert bad.extend(stop(4), HOT).result(WAIT).token_ids == oracle(bad, before, 4)


def test_a_failure_midway_takes_the_tokens_back(engine: Engine) -> None:
    sequence = engine.open_now(PROMPT, seed=1)

    class Third(dict):
        reads = 0

        def items(self):
            Third.reads += 1
            if Third.reads == 3:
                raise ValueError("third draw")
            return super().items()

    sampling = Sampling(temperature=1.5, logit_bias=Third({1: 0.5}))
    with pytest.raises(ValueError, match="third draw"):
        sequence.extend(stop(20), sampling).result(WAIT)
    assert sequence.tokens == PROMPT
    assert sequence.extend(stop(4), HOT).result(WAIT).token_ids == oracle(sequence, PROMPT, 4)


@pytest.mark.parametrize("error", [RuntimeError("arena lost"), MemoryError("arena lost"), SystemExit("arena lost")])
def test_a_failing_executor_fails_every_request_and_health_says_why(error: BaseException) -> None:
    engine, executor = made(running=2)
    go = threading.Event()
    entered = held(engine, go)
    sequences = [engine.open_now([i + 1] * 5, seed=i) for i in range(5)]
    answers = [s.extend(stop(5)) for s in sequences[:3]] + [sequences[3].score([[1]]), sequences[4].read()]
    assert entered.wait(WAIT)
    executor.fail_next = error  # type: ignore[assignment]
    go.set()
    for answer in answers:
        with pytest.raises(EngineStopped, match="arena lost"):
            answer.result(WAIT)
    engine._loop._thread.join(WAIT)
    assert "arena lost" in (engine.healthy() or "")
    for late in (lambda: engine.open_now(PROMPT), lambda: sequences[0].extend(), lambda: sequences[0].fork(1)):
        with pytest.raises(EngineStopped, match="arena lost"):
            late()
    tokens = sequences[0].tokens
    with pytest.raises(EngineStopped):
        sequences[0].append([1])
    assert sequences[0].tokens == tokens
    sequences[0].drop()
    engine.close()
    assert executor.closed


def test_a_core_that_breaks_still_answers_everyone() -> None:
    engine, _ = made()
    go = threading.Event()
    entered = held(engine, go)
    sequences = [engine.open_now([i + 1] * 5, seed=i) for i in range(3)]
    answers = [s.extend(stop(50)) for s in sequences]
    assert entered.wait(WAIT)

    def broken(*_: object) -> None:
        raise AssertionError("table lost")

    engine._core.commit = engine._core.finish = broken  # type: ignore[method-assign,assignment]
    go.set()
    for answer in answers:
        with pytest.raises(EngineStopped, match="table lost"):
            answer.result(WAIT)
    engine.close()


def test_close_with_work_in_flight() -> None:
    engine, executor = made()
    go = threading.Event()
    entered = held(engine, go)
    sequences = [engine.open_now([i + 1] * 5, seed=i) for i in range(3)]
    answers = [s.extend(stop(400), HOT) for s in sequences]
    caught: list[BaseException] = []

    def read() -> None:
        try:
            list(answers[1])
        except EngineStopped as error:
            caught.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    assert entered.wait(WAIT)
    closer = threading.Thread(target=engine.close)
    closer.start()
    while not engine._loop._closing:
        pass
    go.set()
    for answer in answers:
        with pytest.raises(EngineStopped, match="closed"):
            answer.result(WAIT)
    for thread in (reader, closer):
        thread.join(WAIT)
        assert not thread.is_alive()
    assert len(caught) == 1 and executor.closed and engine.healthy() == "the engine is closed"
    engine.close()
    with pytest.raises(EngineStopped):
        engine.open_now(PROMPT)


def test_commands_that_never_cease_do_not_stop_the_steps(engine: Engine) -> None:
    sequence = engine.open_now(PROMPT, seed=3)
    extension = sequence.extend(stop(20), HOT)

    def again(core) -> None:
        if not extension.done():
            engine._post(again)

    engine._post(again)
    assert extension.result(WAIT).token_ids == oracle(sequence, PROMPT, 20)


def test_a_listener_sees_every_step(engine: Engine) -> None:
    seen: list = []
    end = engine.events.listen(seen.append)
    sequence = engine.open_now(PROMPT, seed=3)
    sequence.extend(stop(4), HOT).result(WAIT)
    engine.check()
    end()
    assert [e.sampled_tokens for e in seen] == [1, 1, 1, 1] and seen[0].prefill_tokens == 5
    assert [e.finished for e in seen] == [0, 0, 0, 1] and [e.decode_rows for e in seen] == [0, 1, 1, 1]
