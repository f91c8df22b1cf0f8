"""Random interleavings of every verb, cancellation, eviction and preemption against plain lists of tokens."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from engine.canary import VOCAB, CanaryExecutor, oracle_hidden, oracle_logits
from headrace.engine.engine import Engine
from headrace.engine.sampling import NoiseKey, draw, token_logprob
from headrace.engine.sequence import Mark, SequenceHandle
from headrace.spec.options import EngineOptions
from headrace.spec.sampling import Sampling, Stop

WAIT = 60
TOKENS = st.lists(st.integers(1, VOCAB - 1), min_size=1, max_size=40)
GREEDY, HOT = Sampling(temperature=0), Sampling(temperature=1.5, top_p=0.9, presence_penalty=0.5)


@dataclasses.dataclass(eq=False)
class Twin:
    """A handle and what it must hold."""

    handle: SequenceHandle
    tokens: list[int]
    running: tuple | None = None
    dropped: bool = False


def oracle_extend(tokens: list[int], count: int, sampling: Sampling, noise: NoiseKey, prompt: int, ignore_eos: bool):
    tokens = list(tokens)
    made = []
    for _ in range(count):
        token = draw(oracle_logits(tokens), sampling, noise, tokens, prompt)
        tokens.append(token)
        made.append(token)
        if token == 0 and not ignore_eos:
            return made, "stop"
    return made, "length"


class Verbs(RuleBasedStateMachine):
    twins = Bundle("twins")
    marks = Bundle("marks")
    preempted = reclaimed = 0

    @initialize(
        target=twins,
        pages=st.integers(8, 14),
        step=st.sampled_from([4, 16, 64]),
        running=st.integers(1, 4),
        cache=st.booleans(),
    )
    def start(self, pages: int, step: int, running: int, cache: bool):
        self.executor = CanaryExecutor(pages, tokens=step, logits=max(running, 4))
        options = EngineOptions(running=running, queue=10_000, prefix_cache=cache)
        self.engine = Engine(self.executor, options=options)
        self.live: list[Twin] = []
        self.limit = pages * 16
        return multiple(*(self._opened([n + 1] * (9 * n + 5), n) for n in range(5)))

    def _opened(self, tokens: list[int], seed: int, principal: str = "a") -> Twin:
        twin = Twin(self.engine.open_now(tokens, seed=seed, principal=principal), list(tokens))
        self.live.append(twin)
        return twin

    def settle(self, twin: Twin) -> None:
        """Waits for a running extend and compares it with the oracle."""
        if twin.running is None:
            return
        extension, (made, reason), cancelled = twin.running
        twin.running = None
        step = extension.result(WAIT)
        if cancelled and step.finish_reason == "cancelled":
            assert step.token_ids == made[: len(step.token_ids)]
        else:
            assert (step.token_ids, step.finish_reason) == (made, reason)
        twin.tokens += step.token_ids
        assert twin.handle.tokens == twin.tokens

    @rule(target=twins, tokens=TOKENS, seed=st.integers(0, 3), principal=st.sampled_from(["a", "b"]))
    def open(self, tokens: list[int], seed: int, principal: str):
        return self._opened(tokens, seed, principal)

    @rule(count=st.integers(1, 24), sampling=st.sampled_from([GREEDY, HOT]))
    def surge(self, count: int, sampling: Sampling) -> None:
        """Every live handle at once: more than the pages hold."""
        for twin in self.live[:12]:
            self.extend_one(twin, count, sampling, True, False)

    @rule(
        twin=twins,
        count=st.integers(0, 24),
        sampling=st.sampled_from([GREEDY, HOT]),
        ignore=st.booleans(),
        cancel=st.booleans(),
    )
    def extend(self, twin: Twin, count: int, sampling: Sampling, ignore: bool, cancel: bool) -> None:
        self.extend_one(twin, count, sampling, ignore, cancel)

    def extend_one(self, twin: Twin, count: int, sampling: Sampling, ignore: bool, cancel: bool) -> None:
        self.settle(twin)
        if twin.dropped or len(twin.tokens) + count > self.limit:
            return
        handle = twin.handle
        expected = oracle_extend(
            twin.tokens, count, sampling, NoiseKey(handle.seed, handle._path), handle.prompt_tokens, ignore
        )
        extension = handle.extend(Stop(tokens=count, ignore_eos=ignore), sampling)
        if cancel:
            extension.cancel()
        twin.running = (extension, expected, cancel)

    @rule(twin=twins)
    def wait(self, twin: Twin) -> None:
        self.settle(twin)

    @rule(twin=twins, tokens=TOKENS)
    def append(self, twin: Twin, tokens: list[int]) -> None:
        self.settle(twin)
        if not twin.dropped and len(twin.tokens) + len(tokens) < self.limit:
            twin.handle.append(tokens)
            twin.tokens += tokens

    @rule(target=twins, twin=twins, count=st.integers(1, 3))
    def fork(self, twin: Twin, count: int):
        self.settle(twin)
        if twin.dropped:
            return multiple()
        kids = [Twin(handle, list(twin.tokens)) for handle in twin.handle.fork(count)]
        self.live += kids
        return multiple(*kids)

    @rule(target=twins, twin=twins, count=st.integers(2, 4), tokens=st.integers(8, 20))
    def fork_and_race(self, twin: Twin, count: int, tokens: int):
        """Kids that share a partly filled page all write it in the same steps."""
        self.settle(twin)
        if twin.dropped or len(twin.tokens) + tokens > self.limit:
            return multiple()
        twin.handle.extend(Stop(tokens=0)).result(WAIT)  # so that there are pages to share
        kids = [Twin(handle, list(twin.tokens)) for handle in twin.handle.fork(count)]
        self.live += kids
        for kid in [*kids, twin]:
            self.extend_one(kid, tokens, HOT, True, False)
        return multiple(*kids)

    @rule(target=marks, twin=twins)
    def mark(self, twin: Twin):
        self.settle(twin)
        return multiple() if twin.dropped else (twin, twin.handle.mark())

    @rule(marked=marks, replay=st.booleans())
    def rewind(self, marked: tuple[Twin, Mark], replay: bool) -> None:
        twin, mark = marked
        self.settle(twin)
        if not twin.dropped and mark.length <= len(twin.tokens):
            twin.handle.rewind(mark, replay)
            del twin.tokens[mark.length :]

    @rule(twin=twins, pieces=st.lists(TOKENS, min_size=1, max_size=3))
    def score(self, twin: Twin, pieces: list[list[int]]) -> None:
        self.settle(twin)
        if twin.dropped or len(twin.tokens) + 40 > self.limit:
            return
        for piece, scores in zip(pieces, twin.handle.score(pieces).result(WAIT), strict=True):
            past = list(twin.tokens)
            for token, score in zip(piece, scores, strict=True):
                assert score == token_logprob(oracle_logits(past), token, 0).logprob
                past.append(token)
        assert twin.handle.tokens == twin.tokens

    @rule(twin=twins)
    def read(self, twin: Twin) -> None:
        self.settle(twin)
        if not twin.dropped:
            assert np.array_equal(twin.handle.read().result(WAIT), oracle_hidden(twin.tokens))

    @rule(twin=consumes(twins))
    def drop(self, twin: Twin) -> None:
        twin.handle.drop()
        if twin.running is not None:
            twin.running[0].result(WAIT)
            twin.running = None
        twin.dropped = True
        self.live.remove(twin)

    @rule()
    def evict(self) -> None:
        self.engine.clear_cache()

    @invariant()
    def pages_are_accounted_for(self) -> None:
        if hasattr(self, "engine"):
            self.engine.check()

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        for twin in self.live:
            self.settle(twin)
            twin.handle.drop()
        self.engine.check()
        Verbs.preempted += self.engine.stats()["preempted"]
        Verbs.reclaimed += self.engine.stats()["reclaimed"]
        assert self.engine.stats()["pages_used"] == 0
        assert self.engine.stats()["open_sequences"] == 0
        self.engine.close()


def run(runs: int, steps: int) -> None:
    case = Verbs.TestCase
    case.settings = settings(
        max_examples=runs, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )
    case("runTest").runTest()


def test_verbs_match_lists_of_tokens() -> None:
    run(40, 40)
    assert Verbs.preempted > 0 and Verbs.reclaimed > 0, "the runs never ran out of pages"


@pytest.mark.prove
def test_verbs_match_lists_of_tokens_full(figures: dict) -> None:
    run(1000, 50)
    assert Verbs.preempted > 1000 and Verbs.reclaimed > 1000
    figures.update(runs=1000, steps=50, preemptions=Verbs.preempted, evictions=Verbs.reclaimed)
