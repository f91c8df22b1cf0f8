"""Labelled sequences: what enters carries a label, what leaves carries the join of all that went in.

Cached pages are shared within one label only, whoever the principals are: those who may ask at a label may read all
that others computed at it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from headrace.engine.answer import Answer, Extension
from headrace.engine.engine import Engine
from headrace.engine.sequence import SequenceHandle
from headrace.engine.surface import Prompt, Surface
from headrace.privacy.labels.flow import FlowLabel, FlowRefused, Labelled
from headrace.privacy.labels.log import LabelledLog
from headrace.privacy.labels.partition import PageRanges, Partition
from headrace.privacy.labels.policy import Policy
from headrace.spec.sampling import Sampling, Stop

Home: TypeAlias = Callable[[FlowLabel], Surface]
"""The engine that holds the pages of a label."""


def one_pool(engine: Surface) -> Home:
    """All labels share one engine's pages: nothing but the hit counters' evictions tells of other labels."""
    return lambda label: engine


class Quotas:
    """One engine a label, each with `pages[label]` pages of one executor; `make` builds an engine on its share.

    The shares are fixed before any request, so that no label's use can be seen in another's.
    """

    def __init__(
        self, ranges: PageRanges, pages: Mapping[FlowLabel, int], make: Callable[[Partition], Surface] = Engine
    ) -> None:
        self._shares = {label: ranges.take(count) for label, count in pages.items()}
        self._make = make
        self._engines: dict[FlowLabel, Surface] = {}
        self._lock = threading.Lock()

    def __call__(self, label: FlowLabel) -> Surface:
        """Raises FlowRefused for a label without pages."""
        with self._lock:
            if label not in self._shares:
                raise FlowRefused("This label has no pages; give it a quota, or ask at a label that has one.")
            if label not in self._engines:
                self._engines[label] = self._make(self._shares[label])
            return self._engines[label]

    def close(self) -> None:
        with self._lock:
            for engine in self._engines.values():
                engine.close()


class LabelledEngine:
    """Opens sequences for principals and keeps what they may not see from them."""

    def __init__(self, policy: Policy, home: Home, log: LabelledLog | None = None) -> None:
        self.policy, self.home = policy, home
        self.log = log or LabelledLog(policy)

    def domain(self, label: FlowLabel) -> str:
        """Who may share cached pages: everything of this label."""
        return self.policy.domain(label)

    def label_of(
        self, principal: str, prompt: Labelled[Any], label: FlowLabel | None = None, adapter: str | None = None
    ) -> FlowLabel:
        """The join of the labels of request, prompt and adapter. Raises FlowRefused above a clearance."""
        lattice = self.policy.lattice
        parts = (prompt.label, label or lattice.bottom, self.policy.adapter_label(principal, adapter))
        joined = lattice.join_all(lattice.check(part) for part in parts)
        self.policy.check_read(principal, joined)
        return joined

    def open(
        self,
        principal: str,
        prompt: Labelled[Prompt],
        label: FlowLabel | None = None,
        *,
        adapter: str | None = None,
        adapter_scale: float = 1.0,
        seed: int | None = None,
        sampling: Sampling | None = None,
    ) -> LabelledSequence:
        """A sequence at the join of all labels, `label` (the request's own) among them.

        Raises FlowRefused, and what `Engine.open_now` raises.
        """
        joined = self.label_of(principal, prompt, label, adapter)
        handle = self.home(joined).open_now(
            prompt.value,
            principal=principal,
            sharing=self.domain(joined),
            adapter=adapter,
            adapter_scale=adapter_scale,
            seed=seed,
            sampling=sampling,
        )
        self.log.add("open", principal, joined, tokens=len(handle), adapter=adapter)
        return LabelledSequence(self, principal, handle, joined)


class LabelledSequence:
    """A SequenceHandle with a label that only rises: forks inherit it, forced tokens raise it, outputs carry it."""

    def __init__(self, engine: LabelledEngine, principal: str, handle: SequenceHandle, label: FlowLabel) -> None:
        self.principal, self.label = principal, label
        self._engine, self._handle = engine, handle

    @property
    def tokens(self) -> Labelled[list[int]]:
        return Labelled(self._handle.tokens, self.label)

    @property
    def id(self) -> int:
        """Its number in the engine of its label; another one after a rise."""
        return self._handle.id

    def extend(self, stop: Stop | None = None, sampling: Sampling | None = None) -> Labelled[Extension]:
        """As `SequenceHandle.extend`; the label holds for all that the extension will give."""
        extension = self._handle.extend(stop, sampling)
        self._engine.log.add("extend", self.principal, self.label)
        return Labelled(extension, self.label)

    def score(self, texts: Labelled[Sequence[str | Sequence[int]]]) -> Labelled[Answer[list[list[float]]]]:
        """As `SequenceHandle.score`. Raises FlowRefused for texts that do not flow to this label: rise first."""
        lattice = self._engine.policy.lattice
        if not lattice.leq(texts.label, self.label):
            raise FlowRefused("These texts do not flow to the sequence that is to score them; let it rise first.")
        return Labelled(self._handle.score(texts.value), self.label)

    def append(self, piece: Labelled[str | Sequence[int]]) -> None:
        """Forces tokens. A label that is not below this sequence's raises it. Raises FlowRefused, ContextExceeded."""
        self.rise(piece.label)
        self._handle.append(piece.value)
        self._engine.log.add("append", self.principal, self.label)

    def rise(self, label: FlowLabel) -> None:
        """Goes on at the join of both labels, among that label's pages: the old label's would tell of what comes now.

        The tokens, and what it draws next, stay; their state is computed again. Raises FlowRefused.
        """
        engine, old = self._engine, self._handle
        joined = engine.policy.lattice.join(self.label, engine.policy.lattice.check(label))
        engine.policy.check_read(self.principal, joined)
        if joined == self.label:
            return
        old.append(())  # raises where a verb cannot be called now
        fresh = engine.home(joined).open_now(
            old.tokens,
            principal=self.principal,
            sharing=engine.domain(joined),
            adapter=old.adapter,
            adapter_scale=old.adapter_scale,
            sampling=old.sampling,
            place=old.place,
        )
        fresh.prompt_tokens, fresh.value = old.prompt_tokens, old.value
        old.drop()
        self._handle, self.label = fresh, joined
        engine.log.add("rise", self.principal, joined)

    def fork(self, count: int = 1) -> list[LabelledSequence]:
        """As `SequenceHandle.fork`; each has this sequence's label."""
        kids = self._handle.fork(count)
        self._engine.log.add("fork", self.principal, self.label, count=count)
        return [LabelledSequence(self._engine, self.principal, kid, self.label) for kid in kids]

    def drop(self) -> None:
        self._handle.drop()

    def __enter__(self) -> LabelledSequence:
        return self

    def __exit__(self, *error: object) -> None:
        self.drop()
