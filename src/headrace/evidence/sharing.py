"""What forks save, by the counters of the engine's steps: pages held, prompt tokens computed, pages copied on write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headrace.engine.engine import Engine
from headrace.engine.sequence import SequenceHandle
from headrace.evidence.stage import Stage, View
from headrace.spec.batch import Batch
from headrace.spec.events import StepEvent
from headrace.spec.executor import Executor, Handle
from headrace.spec.labels import LOCAL, Label


class Separate(Engine):
    """The yardstick, and a mutant: a fork is a sequence of its own, which computes and keeps all of its pages.

    Its noise is the fork's, so it says the same, token for token.
    """

    def _branch(self, parent: SequenceHandle, kid: SequenceHandle) -> None:
        self._create(kid, Label(LOCAL, None), pin=False)


@dataclass(slots=True)
class Meter:
    """`prefill` and `decode` tokens computed, `pages` in use at most, `copies` of pages made by writing to them."""

    prefill: int = 0
    decode: int = 0
    pages: int = 0
    copies: int = 0

    def engine(self, stage: Stage, kind: type[Engine] = Engine) -> Engine:
        """A fresh engine without prefix cache, whose steps are counted."""
        engine = stage.engine(view=self._view(), kind=kind)
        engine.events.listen(self._on_event)
        return engine

    def _view(self) -> Callable[[Executor], View]:
        return lambda inner: _Counted(inner, self)

    def on_batch(self, batch: Batch) -> None:
        self.copies += len(batch.copies)

    def _on_event(self, event: StepEvent) -> None:
        self.prefill += event.prefill_tokens
        self.decode += event.decode_tokens
        self.pages = max(self.pages, event.pages_used)


class _Counted(View):
    def __init__(self, inner: Executor, meter: Meter) -> None:
        super().__init__(inner)
        self._meter = meter

    def submit(self, batch: Batch) -> Handle:
        self._meter.on_batch(batch)
        return super().submit(batch)
