"""Plays a world on a labelled engine and keeps all that the viewer gets to see of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeAlias

import numpy as np

from headrace.engine.answer import Extension, Step
from headrace.engine.engine import Engine
from headrace.evidence.scripted import AsciiTokenizer
from headrace.evidence.stage import View
from headrace.evidence.worlds import ADAPTER, VIEWER, Act, World, draw_pair
from headrace.ground.grounded import Citation, answer
from headrace.ground.library import Library
from headrace.privacy.labels.engine import Home, LabelledEngine, LabelledSequence, Quotas, one_pool
from headrace.privacy.labels.flow import FlowLabel, Labelled
from headrace.privacy.labels.log import LabelledLog
from headrace.privacy.labels.partition import PageRanges
from headrace.spec.adapter import Adapter, LowRank
from headrace.spec.batch import Batch
from headrace.spec.executor import Executor, Handle
from headrace.spec.options import EngineOptions
from headrace.spec.sampling import Sampling, Stop

STOP = Stop(tokens=3, ignore_eos=True)
SAMPLING = Sampling(temperature=0.8, logprobs=4)
SEED = 11
QUOTA = 20
"""Pages of a label: a long request and a half, so that a label's own requests do evict each other."""

Seen: TypeAlias = tuple[tuple[Any, ...], int]
"""One thing that the viewer saw, and the hit counter beside it: two worlds' lists are compared as they are."""


class Logits(View):
    """Passes batches on and keeps, for each sequence, a digest of every logit row it got."""

    def __init__(self, inner: Executor) -> None:
        super().__init__(inner)
        self.digests: dict[int, Any] = {}

    def submit(self, batch: Batch) -> Handle:
        result = self.inner.submit(batch).result()
        end = 0
        for row in batch.rows:
            begin, end = end, end + row.logit_count
            if row.logit_count:
                digest = self.digests.setdefault(row.sequence, hashlib.sha256())
                digest.update(np.ascontiguousarray(result.logits[begin:end]).tobytes())
        return result

    def close(self) -> None:
        """A partition gives up what it holds of the shared executor."""
        self.inner.close()


@dataclass
class System:
    """What a world is played on: the parts that leaky ones replace. `pool`: pages of one pool, None for quotas."""

    pool: int | None = None
    engine: type[LabelledEngine] = LabelledEngine
    library: type[Library] = Library
    log: type[LabelledLog] = LabelledLog

    @contextmanager
    def build(self, executor: Executor, world: World) -> Iterator[Play]:
        ranges, views = PageRanges(executor), dict[int, Logits]()
        adapter = house(executor.spec.hidden, world.adapter)

        def make(share: Executor) -> Engine:
            view = Logits(share)
            engine = Engine(view, AsciiTokenizer(), EngineOptions())  # type: ignore[arg-type]
            engine.add_adapter(ADAPTER, adapter)
            views[id(engine)] = view
            return engine

        home: Home
        if self.pool is None:
            home = quotas = Quotas(ranges, dict.fromkeys(world.labels, QUOTA), make)
            close = quotas.close
        else:
            whole = make(ranges.take(self.pool))
            home, close = one_pool(whole), whole.close
        try:
            engine = self.engine(world.policy, home, self.log(world.policy))
            yield Play(engine, self.library(world.policy.lattice), lambda label: views[id(home(label))])
        finally:
            close()


def house(hidden: int, seed: int) -> Adapter:
    rng = np.random.default_rng(seed)
    down = rng.standard_normal((2, hidden), np.float32) / hidden**0.5
    return Adapter(
        ADAPTER, {"layers.0.attn.q.weight": LowRank(down, rng.standard_normal((hidden, 2), np.float32), 1.0)}
    )


@dataclass
class Play:
    """One world being played. `seen` grows with what the system shows the viewer."""

    engine: LabelledEngine
    library: Library
    view_of: Callable[[FlowLabel], Logits]
    seen: list[Seen] = field(default_factory=list)
    late: list[tuple[LabelledSequence, Labelled[Extension]]] = field(default_factory=list)
    results: int = 0
    wrong_labels: int = 0

    async def run(self, world: World) -> list[Seen]:
        for name, passage in world.passages:
            self.library.add(name, passage)
        for act in world.acts:
            await (self._ask(act) if act.kind == "ask" else self._say(act))
        for sequence, extension in self.late:
            await extension.value
            sequence.drop()
        lines = self.engine.log.read(VIEWER)
        facts = [(line.event, line.principal, line.label, sorted(line.facts.items())) for line in lines]
        return [*self.seen, *[(fact, 0) for fact in facts]]

    async def _ask(self, act: Act) -> None:
        found = await answer(
            self.engine,
            self.library,
            act.principal,
            Labelled(act.text, act.label),
            act.label,
            count=2,
            adapter=self._adapter(act),
            stop=STOP,
            sampling=SAMPLING,
            seed=SEED,
        )
        digests = self.view_of(found.label).digests
        digest = digests[max(digests)].hexdigest()  # of the sequence that was opened last
        self._check_label(found.label, act.label, *self._adapter_labels(act))
        self._show(act, found.label, found.value.step, found.value.citations, digest)
        if act.keep:
            prompt = self.engine.policy.lattice.combine(lambda g: f"Summary of {g.step.text}: ", found)
            with self.engine.open(act.principal, prompt, seed=SEED, sampling=SAMPLING) as sequence:
                await self._summarise(act, sequence)

    async def _say(self, act: Act) -> None:
        how = {"adapter": self._adapter(act), "seed": SEED, "sampling": SAMPLING}
        sequence = self.engine.open(act.principal, Labelled(act.text, act.label), **how)  # type: ignore[arg-type]
        if act.late:
            self.late.append((sequence, sequence.extend(STOP)))
            return
        with sequence:
            if act.more is not None:
                sequence.append(act.more)
            await self._extend(act, sequence)
            if act.keep:
                await self._summarise(act, sequence)

    async def _summarise(self, act: Act, sequence: LabelledSequence) -> None:
        (kid,) = sequence.fork()
        with kid:
            extension = kid.extend(STOP)
            step = await extension.value
            self._check_label(extension.label, sequence.label)
            self._show(act, extension.label, step)
            self.library.add("summary", Labelled(f"summary {act.text[:40]} {step.text}", extension.label))

    async def _extend(self, act: Act, sequence: LabelledSequence) -> None:
        extension = sequence.extend(STOP)
        step = await extension.value
        parts = [act.label, *([act.more.label] if act.more else []), *self._adapter_labels(act)]
        self._check_label(extension.label, *parts)
        digest = self.view_of(sequence.label).digests.get(sequence.id)
        self._show(act, extension.label, step, digest=digest.hexdigest() if digest else "")

    def _check_label(self, label: FlowLabel, *parts: FlowLabel) -> None:
        """An output has the join of all that went in."""
        self.results += 1
        self.wrong_labels += label != self.engine.policy.lattice.join_all(parts)

    def _show(
        self, act: Act, label: FlowLabel, step: Step, citations: tuple[Citation, ...] = (), digest: str = ""
    ) -> None:
        """The viewer sees what the system says flows to them."""
        if self.engine.policy.may_read(VIEWER, label):
            usage = (step.prompt_tokens, len(step.token_ids), step.finish_reason)
            what = (act.principal, label, step.token_ids, step.logprobs, usage, citations, digest)
            self.seen.append((what, step.cached_tokens))

    def _adapter(self, act: Act) -> str | None:
        return ADAPTER if act.adapted else None

    def _adapter_labels(self, act: Act) -> list[FlowLabel]:
        return [self.engine.policy.adapters[ADAPTER]] if act.adapted else []


@dataclass(slots=True)
class Tally:
    """Over the pairs compared: `differing` in anything, `beyond_counters` in more than hit counters (first is kept).

    `results`: outputs whose label was held against the join of all that went in; `wrong_labels` of them had another.
    """

    pairs: int = 0
    differing: int = 0
    beyond_counters: int = 0
    observations: int = 0
    cached: int = 0
    results: int = 0
    wrong_labels: int = 0


def compare(executor: Executor, pair: tuple[World, World], system: System, tally: Tally) -> bool:
    """Plays both worlds; whether the viewer saw the same, bit for bit."""
    views: list[list[Seen]] = []
    for world in pair:
        with system.build(executor, world) as play:
            views.append(asyncio.run(play.run(world)))
        tally.results += play.results
        tally.wrong_labels += play.wrong_labels
        tally.observations += len(views[-1])
        tally.cached += sum(cached for _, cached in views[-1])
    same = views[0] == views[1]
    tally.pairs += 1
    tally.differing += not same
    tally.beyond_counters += [what for what, _ in views[0]] != [what for what, _ in views[1]]
    return same


def pairs_until_seen(executor: Executor, seeds: Iterable[int], system: System) -> int | None:
    """How many pairs it took until the viewer saw a difference; None where there was none."""
    for number, seed in enumerate(seeds, 1):
        if not compare(executor, draw_pair(Random(seed)), system, Tally()):
            return number
    return None


def compare_many(executor: Executor, seeds: Iterable[int], system: System) -> Tally:
    tally = Tally()
    for seed in seeds:
        compare(executor, draw_pair(Random(seed)), system, tally)
    return tally
