"""Invariants of a running engine, checked in its own thread at every step from the batches and the step events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from headrace.engine.engine import Engine
from headrace.evidence.stage import View
from headrace.spec.batch import Batch
from headrace.spec.events import StepEvent
from headrace.spec.executor import Executor, Handle
from headrace.spec.model import PAGE_TOKENS

GRACE = 2
"""Steps from a drop to the first that must not know the sequence: one may be under way, the next one obeys."""


@dataclass(slots=True)
class Watch:
    """Faults found so far. Needs an engine without prefix cache and with pages enough, so that nothing is recomputed.

    Contiguous: every row goes on exactly where its sequence stood, once a step, and only live ones have rows.
    Free: the pages in use are those of live sequences, at most GRACE steps after a sequence was dropped.
    """

    steps: int = 0
    gaps: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    events: list[StepEvent] = field(default_factory=list)
    most_pages: int = 0
    _stood: dict[int, int] = field(default_factory=dict)
    _released: dict[int, int] = field(default_factory=dict)

    def view(self) -> Callable[[Executor], View]:
        """To be given to `Stage.engine`: passes batches on and notes them."""
        return lambda inner: _Seen(inner, self)

    def attach(self, engine: Engine) -> Callable[[], None]:
        return engine.events.listen(self._on_event)

    def release(self, sequence: int) -> None:
        """To be called right after a drop."""
        self._released[sequence] = self.steps

    def on_batch(self, batch: Batch) -> None:
        seen: set[int] = set()
        for row in batch.rows:
            stood = self._stood.get(row.sequence, 0)
            if not row.tokens or row.start != stood or row.sequence in seen or self._gone(row.sequence, batch.step):
                self.gaps.append(f"step {batch.step}: sequence {row.sequence} at {row.start}, stood at {stood}")
            seen.add(row.sequence)
            self._stood[row.sequence] = row.start + len(row.tokens)

    def _on_event(self, event: StepEvent) -> None:
        self.steps = event.step
        self.events.append(event)
        self.most_pages = max(self.most_pages, event.pages_used)
        live = [length for sequence, length in self._stood.items() if not self._gone(sequence, event.step)]
        allowed = sum(-(-length // PAGE_TOKENS) for length in live)
        if event.pages_used > allowed:
            self.leaks.append(f"step {event.step}: {event.pages_used} pages in use, live sequences need {allowed}")

    def _gone(self, sequence: int, step: int) -> bool:
        return sequence in self._released and step >= self._released[sequence] + GRACE


class _Seen(View):
    def __init__(self, inner: Executor, watch: Watch) -> None:
        super().__init__(inner)
        self._watch = watch

    def submit(self, batch: Batch) -> Handle:
        self._watch.on_batch(batch)
        return self.inner.submit(batch)
