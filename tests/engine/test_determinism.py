"""The same answer every time: tokens and log-probabilities, bit for bit, whatever else happens.

The quick run uses a small random llama, the full one SmolLM2 with 50 prompts of 64 tokens. What every condition is
held against is each prompt alone, on one thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from headrace.backends.select import make_executor
from headrace.engine.engine import Engine
from headrace.engine.sequence import SequenceHandle
from headrace.evidence.stage import RandomWeights
from headrace.model.loading import load_model
from headrace.spec.batch import Batch
from headrace.spec.executor import Executor, Limits, WeightStore
from headrace.spec.ledger import Ledger
from headrace.spec.model import Attention, Layer, Mlp, ModelSpec, Norm, Rope
from headrace.spec.options import EngineOptions
from headrace.spec.sampling import Sampling, Stop

WIDE = Limits((1200,), 512, 128)
THREADS = {"reference": (1,), "native": (1, 2)}
SAMPLINGS = {
    "greedy": Sampling(temperature=0, logprobs=5),
    "sampled": Sampling(temperature=0.9, top_p=0.95, top_k=50, logprobs=5),
}


def small_llama() -> ModelSpec:
    layer = Layer(Attention(6, 2, 32, 32**-0.5, Rope(32)), Mlp(512), Norm())
    return ModelSpec("llama", 192, 512, 2048, (layer,) * 3, tied=True, final_norm=Norm())


class Narrowed:
    """The same executor under smaller limits, so that one loaded model serves many engines.

    No step is run while `ready` is not set, so that a whole crowd is there when the first one is.
    """

    def __init__(self, inner: Executor, limits: Limits) -> None:
        self.inner, self.limits, self.most_rows = inner, limits, 0
        self.ready = Event()
        self.ready.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def submit(self, batch: Batch) -> Any:
        self.ready.wait()
        self.most_rows = max(self.most_rows, len(batch.rows))
        return self.inner.submit(batch)

    def close(self) -> None:
        """The suite keeps the executor."""


@dataclass(frozen=True)
class Suite:
    executors: dict[int, Executor]
    """By count of threads."""
    prompts: tuple[tuple[int, ...], ...]
    new: int
    crowded_pages: int

    def engine(
        self, threads: int, pages: int = WIDE.pages[0], step_tokens: int = 256, running: int = 32, cache: bool = False
    ) -> Engine:
        limits = Limits((pages,), step_tokens, min(WIDE.logits, step_tokens))
        options = EngineOptions(running=running, prefix_cache=cache)
        return Engine(Narrowed(self.executors[threads], limits), options=options)

    def open(self, engine: Engine, prompt: tuple[int, ...], number: int) -> SequenceHandle:
        return engine.open_now(prompt, seed=number)

    def run(self, engine: Engine, sampling: Sampling, count: int, together: bool, fork: bool = False) -> list[Any]:
        """(token ids, log-probabilities) of `count` requests, which ask for the prompts by turns."""
        stop = Stop(tokens=self.new, ignore_eos=True)
        found, handles, running = [], [], []
        if together and not fork:
            engine._executor.ready.clear()
        for request in range(count):
            number = request % len(self.prompts)
            prompt = self.prompts[number]
            handle = self.open(engine, prompt[: len(prompt) // 2] if fork else prompt, number)
            if fork:
                # A parent that has state of its own, a kid that shares it and goes on by forced tokens.
                handle.read().result()
                kid = handle.fork(1)[0]
                kid._path = (0,)
                kid.append(prompt[len(prompt) // 2 :])
                kid.prompt_tokens = len(prompt)
                handles.append(handle)
                handle = kid
            handles.append(handle)
            running.append(handle.extend(stop, sampling))
            if not together:
                found.append(_bits(running[-1].result()))
        engine._executor.ready.set()
        if together:
            found = [_bits(extension.result()) for extension in running]
        for handle in handles:
            handle.drop()
        return found


def _bits(step: Any) -> Any:
    return step.token_ids, [(p.token_id, p.logprob, p.top) for p in step.logprobs]


def words(count: int, vocab: int, longest: int) -> tuple[tuple[int, ...], ...]:
    """Prompts of 5 to `longest` tokens; every third starts like the one before it."""
    rng = np.random.default_rng(5)
    prompts: list[tuple[int, ...]] = []
    for number in range(count):
        prompt = tuple(int(t) for t in rng.integers(3, vocab, int(rng.integers(5, longest))))
        prompts.append(prompts[-1] + prompt[:20] if number % 3 == 2 else prompt)
    return tuple(prompts)


def need(backend: str) -> None:
    module = {"reference": "torch", "native": "headrace.backends.native._kernels"}[backend]
    pytest.importorskip(module, reason=f"the {backend} backend is not installed")


def on_threads(backend: Any, spec: ModelSpec, weights: WeightStore) -> dict[int, Executor]:
    options = [EngineOptions(backend=backend, threads=threads) for threads in THREADS[backend]]
    return {one.threads or 1: make_executor(spec, weights, WIDE, Ledger(), one) for one in options}


@cache
def small(backend: str) -> Suite:
    executors = on_threads(backend, small_llama(), RandomWeights(small_llama()))
    return Suite(executors, words(8, 512, 70), 12, crowded_pages=18)


@cache
def smollm2_suite(path: Path, backend: str) -> Suite:
    loaded = load_model(path, Ledger())
    assert loaded.tokenizer is not None
    encoded = [tuple(loaded.tokenizer.encode(text)) for text in _texts(50)]
    return Suite(on_threads(backend, loaded.spec, loaded.weights), tuple(encoded), 64, crowded_pages=90)


def _texts(count: int) -> list[str]:
    subjects = ["rivers", "a steam engine", "the moon", "bread", "prime numbers", "old maps", "a violin"]
    forms = [
        "Explain {} to a child.",
        "Write three facts about {}. Be precise, and give a reason for each of them.\n1.",
        "<|im_start|>user\nWhat do you know about {}?<|im_end|>\n<|im_start|>assistant\n",
        "{}" + ", and then something else, and then more of it" * 6,
    ]
    return [forms[n % len(forms)].format(subjects[n % len(subjects)]) for n in range(count)]


CONDITIONS: dict[str, dict[str, Any]] = {
    "crowd of 2": {"running": 2},
    "crowd of 8": {"running": 8},
    "crowd of 32": {},
    "crowd of 128": {"running": 128, "step_tokens": 512},
    "chunk 1": {"step_tokens": 1},
    "chunk 7": {"step_tokens": 7},
    "chunk 64": {"step_tokens": 64},
    "chunk 512": {"step_tokens": 512},
    "warm cache": {"cache": True},
    "forked": {"cache": True},
    "preempted": {},
}
QUICK = tuple(name for name in CONDITIONS if name != "crowd of 128")


def condition(suite: Suite, name: str, sampling: Sampling, threads: int = 1) -> list[Any]:
    """What every request got; of a crowd there are as many as shall run at a time, else one a prompt."""
    settings = dict(CONDITIONS[name])
    crowd = settings.get("running", 32) if name.startswith("crowd") else 0
    count = max(crowd, len(suite.prompts))
    if name == "preempted":
        settings["pages"] = suite.crowded_pages
    with suite.engine(threads, **settings) as engine:
        if name == "warm cache":
            suite.run(engine, sampling, count, together=True)
        found = suite.run(engine, sampling, count, together=True, fork=name == "forked")
        if name == "preempted":
            assert engine.stats()["preempted"] > 0, "nothing was preempted; give fewer pages"
        if name == "warm cache":
            assert sum(e.cached_tokens for e in engine.events.recent()) > 0, "nothing was cached"
        assert engine._executor.most_rows >= crowd, "the crowd was smaller; give more pages"
        engine.check()
    return found


def alone(suite: Suite, sampling: Sampling) -> list[Any]:
    with suite.engine(1, running=1) as engine:
        return suite.run(engine, sampling, len(suite.prompts), together=False)


def check_conditions(suite: Suite, sampling: Sampling, names: Iterable[str]) -> None:
    expected = alone(suite, sampling)
    for threads in suite.executors:
        for name in names:
            found = condition(suite, name, sampling, threads)
            assert found == (expected * len(found))[: len(found)], f"{name}, threads: {threads}"


@pytest.mark.parametrize("kind", SAMPLINGS)
@pytest.mark.parametrize("backend", THREADS)
def test_same_bits_in_every_condition(backend: str, kind: str) -> None:
    need(backend)
    check_conditions(small(backend), SAMPLINGS[kind], QUICK)


def test_without_fixed_tiles_the_bits_change() -> None:
    """The reference's promise rests on the tiling: switched off, a crowd changes log-probabilities."""
    need("reference")
    from headrace.backends.reference.executor import ReferenceExecutor

    loose = ReferenceExecutor(small_llama(), RandomWeights(small_llama()), WIDE, Ledger(), threads=1, row_tile=None)
    if loose.guarantees.bit_exact:
        pytest.skip("products here give a row the same bits among any number of rows, as measured when loading")
    suite = replace(small("reference"), executors={1: loose})
    expected = alone(suite, SAMPLINGS["greedy"])
    assert any(condition(suite, name, SAMPLINGS["greedy"]) != expected for name in ("crowd of 8", "chunk 7"))


@pytest.mark.prove
@pytest.mark.parametrize("kind", SAMPLINGS)
@pytest.mark.parametrize("backend", THREADS)
def test_same_bits_in_every_condition_full(backend: str, kind: str, smollm2: Path, figures: dict) -> None:
    need(backend)
    suite = smollm2_suite(smollm2, backend)
    check_conditions(suite, SAMPLINGS[kind], CONDITIONS)
    figures.update(
        prompts=len(suite.prompts),
        tokens=suite.new,
        conditions=len(CONDITIONS),
        threads=list(suite.executors),
        differing=0,
    )
