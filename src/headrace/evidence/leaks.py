"""Labelled systems that leak on purpose, and the channel that a shared pool leaves open, measured."""

from __future__ import annotations

import math
from collections import Counter
from random import Random
from typing import Any

from headrace.engine.engine import Engine
from headrace.evidence.interference import SAMPLING, STOP, System
from headrace.evidence.scripted import AsciiTokenizer
from headrace.evidence.stage import Stage
from headrace.ground.library import Index, Library, words
from headrace.privacy.labels.engine import Home, LabelledEngine, LabelledSequence, Quotas, one_pool
from headrace.privacy.labels.flow import FlowLabel, FlowLattice, Labelled
from headrace.privacy.labels.lattice import Levels
from headrace.privacy.labels.log import LabelledLog, Line
from headrace.privacy.labels.partition import PageRanges, Partition
from headrace.privacy.labels.policy import Policy
from headrace.spec.options import EngineOptions
from headrace.spec.reasoning import Passage

AMPLE = 1200
"""Pages of one pool that no history here fills: whatever differs then is not the evictions' doing."""


class SharedPages(LabelledEngine):
    """Cached pages are found whatever their label."""

    def domain(self, label: FlowLabel) -> str:
        return "everyone"


class Dropping(LabelledSequence):
    """A fork starts without its parent's label."""

    def fork(self, count: int = 1) -> list[LabelledSequence]:
        kids = super().fork(count)
        for kid in kids:
            kid.label = self._engine.policy.lattice.bottom
        return kids


class Staying(LabelledSequence):
    """A rise changes the label and leaves the pages where they are."""

    def rise(self, label: FlowLabel) -> None:
        self.label = self._engine.policy.lattice.join(self.label, label)


class _Instead(LabelledEngine):
    sequence: type[LabelledSequence]

    def open(self, *request: Any, **how: Any) -> LabelledSequence:
        made = super().open(*request, **how)
        return self.sequence(self, made.principal, made._handle, made.label)


class DropsInForks(_Instead):
    sequence = Dropping


class RisesInPlace(_Instead):
    sequence = Staying


class IgnoresAdapters(LabelledEngine):
    """What an adapter was trained on is forgotten."""

    def label_of(
        self, principal: str, prompt: Labelled[Any], label: FlowLabel | None = None, adapter: str | None = None
    ) -> FlowLabel:
        return super().label_of(principal, prompt, label)


class FiltersAfterwards(Library):
    """Scores everything and then leaves out what may not be read."""

    def find(self, label: FlowLabel, query: str, count: int) -> list[Passage]:
        keys = self.readable(self.lattice.top)
        found = Index(keys, [words(self._texts[key]) for key in keys]).best(words(query), count)
        seen = [(key, score) for key, score in found if self.lattice.leq(key[1], label)]
        return [Passage(id, self._texts[id, at], score, {"label": at}) for (id, at), score in seen]


class OpenLog(LabelledLog):
    """Everybody reads every line."""

    def read(self, principal: str) -> list[Line]:
        return list(self._lines)


LEAKS = {
    "a page shared across labels": System(AMPLE, engine=SharedPages),
    "a label dropped in a fork": System(AMPLE, engine=DropsInForks),
    "a rise that leaves the pages": System(AMPLE, engine=RisesInPlace),
    "an adapter's label ignored": System(AMPLE, engine=IgnoresAdapters),
    "a filter after the scores": System(AMPLE, library=FiltersAfterwards),
    "a log for everyone": System(AMPLE, log=OpenLog),
}


# -- the eviction channel --------------------------------------------------------------------------

LOW, HIGH = FlowLabel("low", "any"), FlowLabel("high", "any")
POLICY = Policy(FlowLattice(Levels(("low", "high")), Levels(("any",))), {"probe": LOW, "victim": HIGH})
PAGES = 12


def eviction_channel(stage: Stage, uses: int, quotas: bool) -> float:
    """Bits a use that a low principal learns of a high one's work from its own hit counter, by prime and probe.

    It fills the cache, lets the other work or not, and asks again: of one pool of 12 pages, or 12 split between both.
    """
    found = Counter((bool(use % 2), _probe(stage, use, bool(use % 2), quotas)) for use in range(uses))
    worked = Counter(bit for bit, _ in found.elements())
    counters = Counter(cached for _, cached in found.elements())
    return sum(n / uses * math.log2(n * uses / (worked[bit] * counters[cached])) for (bit, cached), n in found.items())


def _probe(stage: Stage, use: int, works: bool, quotas: bool) -> int:
    ranges = PageRanges(stage.executor)
    home: Home
    if quotas:
        home = split = Quotas(ranges, {LOW: PAGES // 2, HIGH: PAGES // 2}, plain_engine)
        close = split.close
    else:
        whole = plain_engine(ranges.take(PAGES))
        home, close = one_pool(whole), whole.close
    engine = LabelledEngine(POLICY, home)
    _use(engine, "probe", LOW, use)
    for work in range(2 * works):
        _use(engine, "victim", HIGH, use + work + 1)
    cached = _use(engine, "probe", LOW, use)
    close()
    return cached


def _use(engine: LabelledEngine, principal: str, label: FlowLabel, number: int) -> int:
    """A request of 80 tokens, five full pages; returns the cached ones."""
    text = "".join(Random(number).choices("abcdefgh", k=80))
    with engine.open(principal, Labelled(text, label), seed=0) as sequence:
        return sequence.extend(STOP, SAMPLING).value.result().cached_tokens


def plain_engine(share: Partition) -> Engine:
    return Engine(share, AsciiTokenizer(), EngineOptions())  # type: ignore[arg-type]
