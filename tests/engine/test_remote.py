"""An engine in another process does what one in this process does, and says so when it dies."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the tiny twin is written with transformers and torch")
pytest.importorskip("transformers", reason="the tiny twin is written with transformers and torch")

from headrace.engine.engine import Engine
from headrace.engine.remote import RemoteEngine
from headrace.engine.surface import Surface
from headrace.spec.errors import EngineStopped, InvalidRequest, ModelFileError, Overloaded
from headrace.spec.options import EngineOptions
from headrace.spec.sampling import Sampling, Stop
from server.twin import write_twin

OPTIONS = EngineOptions(state_memory=8, threads=1, queue=8, running=4)
HOT = Sampling(temperature=1.2, logprobs=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_twin(tmp_path_factory.mktemp("twin"))


@pytest.fixture(scope="module")
def remote(folder: Path) -> Iterator[RemoteEngine]:
    with RemoteEngine(folder, OPTIONS) as engine:
        yield engine


def every_verb(engine: Surface) -> list[object]:
    """What a fixed history of verbs gives; equal on every engine."""
    stop = Stop(tokens=9, ignore_eos=True)
    with engine.open_now("The river", seed=4) as root:
        found: list[object] = [root.tokens, root.extend(stop, HOT).result().token_ids]
        mark = root.mark()
        root.append(" turns")
        found.append([token.id for token in root.extend(stop, HOT)])
        root.rewind(mark)
        found.append(root.extend(stop, HOT).result().logprobs)
        root.rewind(mark, replay=True)
        found.append(root.score([" the wheel", [1, 2, 3]]).result())
        found.append(root.read(pool="mean").result().tolist())
        kids = root.fork(2)
        steps = [kid.extend(stop, HOT) for kid in kids]
        found += [step.result().text for step in steps]
        found += [kid.tokens for kid in kids]
        for kid in kids:
            kid.drop()
    engine.check()
    return found


def test_same_as_in_this_process(remote: RemoteEngine, folder: Path) -> None:
    with Engine.load(folder, OPTIONS) as local:
        assert every_verb(remote) == every_verb(local)
        assert remote.spec == local.spec and remote.guarantees == local.guarantees
    assert remote.stats()["open_sequences"] == 0 and remote.stats()["pages_used"] == 0


def test_asyncio_streams_and_events(remote: RemoteEngine) -> None:
    async def one(seed: int) -> list[int]:
        async with await remote.open("Hello", seed=seed) as sequence:
            return [token.id async for token in sequence.extend(Stop(tokens=5, ignore_eos=True), HOT)]

    async def four() -> list[list[int]]:
        return await asyncio.gather(*(one(seed) for seed in range(4)))

    before = len(remote.events.recent())
    assert [len(ids) for ids in asyncio.run(four())] == [5] * 4
    assert sum(event.sampled_tokens for event in remote.events.recent()[before:]) == 20


def test_cancel_and_errors(remote: RemoteEngine) -> None:
    with remote.open_now("Hello", seed=1) as sequence:
        extension = sequence.extend(Stop(tokens=400, ignore_eos=True), HOT)
        next(iter(extension))
        extension.cancel()
        step = extension.result(60)
        assert step.finish_reason == "cancelled" and sequence.tokens[6 - 1 :][-1:] == step.token_ids[-1:]
    with pytest.raises(InvalidRequest):
        remote.open_now([999_999])
    remote.check()


def test_a_full_queue_refuses(remote: RemoteEngine) -> None:
    root = remote.open_now("Hello", seed=1)
    kids = root.fork(20)
    running = []
    with pytest.raises(Overloaded):
        for kid in kids:
            running.append(kid.extend(Stop(tokens=64, ignore_eos=True), HOT))
    assert OPTIONS.running + OPTIONS.queue <= len(running) < 20
    assert all(len(extension.result(60).token_ids) == 64 for extension in running)
    for handle in [root, *kids]:
        handle.drop()
    remote.check()
    assert remote.stats()["open_sequences"] == 0


def test_loading_fails_with_the_loaders_words(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError):
        RemoteEngine(tmp_path / "nothing.gguf")


def test_death_of_the_process_fails_what_is_open(folder: Path) -> None:
    with RemoteEngine(folder, OPTIONS) as engine:
        sequence = engine.open_now("Hello", seed=1)
        extension = sequence.extend(Stop(tokens=400, ignore_eos=True), HOT)
        os.kill(engine._process.pid or 0, signal.SIGKILL)
        with pytest.raises(EngineStopped):
            extension.result(60)
        engine._thread.join(60)
        assert engine.healthy() is not None
        with pytest.raises(EngineStopped):
            engine.open_now("Hello")
    assert np.isfinite(engine.context)
