"""Adapters by request: the same bits in every condition, nothing cached shared, nothing left behind."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from backends.lora import random_adapter
from engine.canary import CanaryExecutor
from engine.test_determinism import (
    QUICK,
    SAMPLINGS,
    THREADS,
    Suite,
    alone,
    check_conditions,
    need,
    on_threads,
    small,
    small_llama,
)
from headrace.backends.select import make_executor
from headrace.engine.engine import Engine
from headrace.engine.sequence import SequenceHandle
from headrace.evidence.stage import RandomWeights
from headrace.spec.adapter import Adapter
from headrace.spec.errors import InvalidRequest, ModelFileError, PlanRejected
from headrace.spec.executor import Limits
from headrace.spec.ledger import Ledger
from headrace.spec.options import EngineOptions
from headrace.spec.sampling import Sampling, Stop

BACKENDS = pytest.mark.parametrize("backend", THREADS)
SPEC = small_llama()
FIVE = Stop(tokens=5, ignore_eos=True)
GREEDY = Sampling(temperature=0, logprobs=3)
PROMPT = tuple(range(3, 43))
USES: tuple[tuple[str | None, float], ...] = ((None, 1.0), ("one", 1.0), ("two", 1.0), ("one", -0.5), (None, 1.0))
"""What the prompts of a suite are opened with, by turns."""


def adapters() -> tuple[Adapter, Adapter]:
    return random_adapter(SPEC, "one", 1, 8), random_adapter(SPEC, "two", 2, 4, only="attn.")


class Shared:
    """An executor under many engines, which add the same adapters to it one after the other."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.names: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def add_adapter(self, adapter: Adapter) -> None:
        if adapter.name not in self.names:
            self.inner.add_adapter(adapter)
        self.names.add(adapter.name)


@dataclass(frozen=True)
class Adapted(Suite):
    def engine(self, *sizes: Any, **how: Any) -> Engine:
        engine = super().engine(*sizes, **how)
        for adapter in adapters():
            engine.add_adapter(adapter.name, adapter)
        return engine

    def open(self, engine: Engine, prompt: tuple[int, ...], number: int) -> SequenceHandle:
        adapter, scale = USES[number % len(USES)]
        return engine.open_now(prompt, seed=number, adapter=adapter, adapter_scale=scale)


@cache
def adapted(backend: str) -> Adapted:
    executors = on_threads(backend, SPEC, RandomWeights(SPEC))
    shared: Any = {threads: Shared(executor) for threads, executor in executors.items()}
    plain = small(backend)
    return Adapted(shared, plain.prompts, plain.new, plain.crowded_pages)


@pytest.mark.parametrize(("backend", "kind"), [("native", "greedy"), ("native", "sampled"), ("reference", "sampled")])
def test_same_bits_in_every_condition(backend: str, kind: str) -> None:
    """Requests of two adapters, of one at another strength and of none: alone, in crowds, chunked, cached, forked."""
    need(backend)
    check_conditions(adapted(backend), SAMPLINGS[kind], QUICK)


@BACKENDS
def test_without_an_adapter_the_bits_are_those_of_an_engine_that_has_none(backend: str) -> None:
    need(backend)
    mixed, plain = (alone(suite, SAMPLINGS["greedy"]) for suite in (adapted(backend), small(backend)))
    equal = [number for number, (found, wanted) in enumerate(zip(mixed, plain, strict=True)) if found == wanted]
    assert equal == [number for number in range(len(plain)) if USES[number % len(USES)][0] is None]


@pytest.fixture(params=THREADS)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    need(request.param)
    options = EngineOptions(backend=request.param, threads=1)
    ledger = Ledger()
    executor = make_executor(SPEC, RandomWeights(SPEC), Limits((64,), 64, 32), ledger, options)
    with Engine(executor, options=options, ledger=ledger) as engine:
        for adapter in adapters():
            engine.add_adapter(adapter.name, adapter)
        yield engine
        assert engine.healthy() is None
        engine.check()
    assert ledger.total == 0


def answer(engine: Engine, adapter: str | None = None, scale: float = 1.0) -> tuple[int, Any]:
    """(cached tokens, bits) of a request."""
    with engine.open_now(PROMPT, seed=1, adapter=adapter, adapter_scale=scale) as sequence:
        step = sequence.extend(FIVE, GREEDY).result()
    return step.cached_tokens, (step.token_ids, step.logprobs)


VARIANTS = ((None, 1.0), ("one", 1.0), ("two", 1.0), ("one", 0.5))


def cold_and_shared(engine: Engine) -> Iterator[tuple[Any, Any]]:
    """Answers of each variant from an empty cache, and from one that all others have filled."""
    cold = []
    for adapter, scale in VARIANTS:
        engine.clear_cache()
        cold.append(answer(engine, adapter, scale)[1])
    assert all(first != second for first, second in itertools.combinations(cold, 2))
    engine.clear_cache()
    for (adapter, scale), wanted in zip(VARIANTS, cold, strict=True):
        cached, found = answer(engine, adapter, scale)
        yield (0, wanted), (cached, found)
        cached, found = answer(engine, adapter, scale)
        yield (32, wanted), (cached, found)


def test_no_cached_prefix_is_shared_between_adapters_or_strengths(engine: Engine) -> None:
    for wanted, found in cold_and_shared(engine):
        assert wanted == found


def test_a_key_without_the_adapter_would_be_found_out(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_variant_of", lambda adapter, scale: engine._variant)
    assert any(wanted[1] != found[1] for wanted, found in cold_and_shared(engine))


def test_a_key_without_the_strength_would_be_found_out(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_variant_of", lambda adapter, scale: f"{engine._variant}|{adapter}")
    assert any(wanted[1] != found[1] for wanted, found in cold_and_shared(engine))


def test_strength_0_is_the_model_itself_and_shares_its_prefixes(engine: Engine) -> None:
    _, wanted = answer(engine)
    assert answer(engine, "one", 0.0) == (32, wanted)
    assert answer(engine, "one", 1.0)[0] == 0


def test_forks_scores_and_reads_keep_the_adapter(engine: Engine) -> None:
    _, wanted = answer(engine, "one")
    with engine.open_now(PROMPT[:20], adapter="one") as root, engine.open_now(PROMPT) as base:
        kid = root.fork()[0].fork()[0]
        kid.append(PROMPT[20:])
        assert (kid.adapter, kid.adapter_scale) == ("one", 1.0)
        step = kid.extend(FIVE, GREEDY).result()
        assert (step.token_ids, step.logprobs) == wanted
        root.append(PROMPT[20:])
        mark = root.mark()
        scores = root.score([[token] for token in step.token_ids[:1]]).result()
        assert scores == [[wanted[1][0].logprob]] != base.score([step.token_ids[:1]]).result()
        read = root.read().result()
        assert (read == root.fork()[0].read().result()).all() and (read != base.read().result()).any()
        root.extend(FIVE, GREEDY).result()
        root.rewind(mark, replay=True)
        assert root.extend(FIVE, GREEDY).result().token_ids == wanted[0]
        kid.drop()


def test_what_open_refuses(engine: Engine) -> None:
    with pytest.raises(InvalidRequest, match="Adapter 'three' is not loaded; use one of one, two"):
        engine.open_now(PROMPT, adapter="three")
    for scale in (float("nan"), float("-inf"), 100.5):
        with pytest.raises(InvalidRequest, match=f"adapter_scale is {scale}; give a number from -100 to 100"):
            engine.open_now(PROMPT, adapter="one", adapter_scale=scale)
    with pytest.raises(InvalidRequest, match="adapter_scale is for an adapter"):
        engine.open_now(PROMPT, adapter_scale=0.5)


def test_what_adding_refuses(engine: Engine) -> None:
    one = adapters()[0]
    for name in ("", " a", "a=b"):
        with pytest.raises(InvalidRequest, match="cannot name an adapter"):
            engine.add_adapter(name, one)
    with pytest.raises(InvalidRequest, match="Adapter one is loaded already"):
        engine.add_adapter("one", one)
    with pytest.raises(ModelFileError, match="is no adapter's folder"):
        engine.add_adapter("three", "/nowhere")
    before = engine.ledger.total
    engine.ledger.limit = before + 100
    with pytest.raises(PlanRejected, match="remove an adapter"):
        engine.add_adapter("three", one)
    assert engine.adapters == ("one", "two") and engine.ledger.total == before


def test_an_adapter_in_use_stays_and_then_goes(engine: Engine) -> None:
    with (
        engine.open_now(PROMPT, adapter="one"),
        pytest.raises(InvalidRequest, match="1 open sequences use adapter one"),
    ):
        engine.remove_adapter("one")
    engine.remove_adapter("one")
    assert engine.adapters == ("two",)
    with pytest.raises(InvalidRequest, match="'one' is not loaded; nothing is left"):
        engine.remove_adapter("one")
    with pytest.raises(InvalidRequest, match="'one' is not loaded; use one of two"):
        engine.open_now(PROMPT, adapter="one")


def test_another_adapter_of_the_same_name_hits_nothing_of_the_first(engine: Engine) -> None:
    _, first = answer(engine, "one")
    engine.remove_adapter("one")
    engine.add_adapter("one", random_adapter(SPEC, seed=9))
    cached, other = answer(engine, "one")
    assert cached == 0 and other != first
    engine.remove_adapter("one")
    engine.add_adapter("again", adapters()[0])
    assert answer(engine, "again") == (32, first)


def test_adding_while_requests_run(engine: Engine) -> None:
    async def both() -> Any:
        long = Stop(tokens=60, ignore_eos=True)
        sequence = await engine.open(PROMPT, adapter="one")
        extension = sequence.extend(long, GREEDY)
        await asyncio.to_thread(engine.add_adapter, "three", random_adapter(SPEC, seed=3))
        other = await engine.open(PROMPT, adapter="three")
        await other.extend(FIVE, GREEDY)
        step = await extension
        for handle in (sequence, other):
            handle.drop()
        return step.token_ids

    _, (wanted, _) = answer(engine, "one")
    assert asyncio.run(both())[:5] == wanted


def test_rows_say_what_they_are_computed_with() -> None:
    """What a scheduler, a simulator or another executor sees of adapters."""
    executor = CanaryExecutor(32)
    executor.add_adapter = lambda adapter: None  # type: ignore[attr-defined]
    with Engine(executor) as engine:  # type: ignore[arg-type]
        engine.add_adapter("one", Adapter("other", {}))
        with engine.open_now([5, 6, 7], adapter="one", adapter_scale=2) as handle, engine.open_now([5, 6, 7]) as base:
            [extension.result() for extension in (handle.extend(FIVE), base.extend(FIVE))]
    seen = {(row.sequence, row.adapter, row.adapter_scale) for batch in executor.batches for row in batch.rows}
    assert seen == {(handle.id, "one", 2.0), (base.id, None, 1.0)}


# ---- from files ----


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and an adapter of it."""
    pytest.importorskip("torch", reason="the tiny twin is written with transformers and torch")
    pytest.importorskip("transformers", reason="the tiny twin is written with transformers and torch")
    from server.twin import write_adapter_of, write_twin

    model = write_twin(tmp_path_factory.mktemp("twin"))
    return model, write_adapter_of(model, tmp_path_factory.mktemp("adapter"))


OPTIONS = EngineOptions(state_memory=8, threads=1)


def texts(engine: Any) -> list[str]:
    found = []
    for how in ({}, {"adapter": "one"}, {"adapter": "one", "adapter_scale": 0.5}):
        with engine.open_now("The river", seed=4, **how) as root, root.fork()[0] as kid:
            found.append(kid.extend(Stop(tokens=9, ignore_eos=True), Sampling(temperature=0)).result().text)
    return found


def test_loading_and_an_engine_in_another_process(folders: tuple[Path, Path]) -> None:
    from headrace.engine.remote import RemoteEngine

    model, folder = folders
    with Engine.load(model, replace(OPTIONS, adapter=(f"one={folder}",))) as engine:
        wanted = texts(engine)
        assert len(set(wanted)) == 3 and engine.adapters == ("one",)
    with RemoteEngine(model, OPTIONS) as remote:
        with pytest.raises(InvalidRequest, match="'one' is not loaded; none is"):
            remote.open_now("The river", adapter="one")
        with pytest.raises(ModelFileError, match="is no adapter's folder"):
            remote.add_adapter("one", folder / "absent")
        before = remote.ledger.total
        remote.add_adapter("one", folder)
        assert texts(remote) == wanted and remote.ledger.total > before
        with remote.open_now("The river", adapter="one") as held:
            held.read().result()
            with pytest.raises(InvalidRequest, match="1 open sequences use adapter one"):
                remote.remove_adapter("one")
        remote.remove_adapter("one")
        assert remote.adapters == ()


def test_loading_refuses_before_the_weights_are_read(folders: tuple[Path, Path]) -> None:
    model, folder = folders
    with pytest.raises(ModelFileError, match="is no adapter's folder"):
        Engine.load(model, replace(OPTIONS, adapter=(f"one={folder / 'absent'}",)))
    for text in ("one", "=x", "one="):
        with pytest.raises(InvalidRequest, match="give NAME=FOLDER"):
            replace(OPTIONS, adapter=(text,))
    with pytest.raises(InvalidRequest, match="names an adapter twice"):
        replace(OPTIONS, adapter=("one=a", "one=b"))


def test_the_memory_of_adapters_is_in_the_plan(folders: tuple[Path, Path]) -> None:
    model, folder = folders
    with Engine.load(model, replace(OPTIONS, adapter=(f"one={folder}",))) as engine:
        charged = [item for item in engine.ledger.items if "adapter" in item.what]
        assert sum(item.bytes for item in charged) > 0
        assert not any("as read" in item.what for item in charged)
