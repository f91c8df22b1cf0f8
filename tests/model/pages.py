"""Runs token sequences through an executor with a simple page table: sequence after sequence of pages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headrace.spec.batch import Batch, Row
from headrace.spec.executor import Executor
from headrace.spec.model import PAGE_TOKENS, ModelSpec


class Runner:
    """Keeps, for each sequence, its own pages: sequence s has pages s * n to s * n + n - 1 of every group."""

    def __init__(self, executor: Executor, spec: ModelSpec, pages_each: int) -> None:
        self.executor, self.groups, self.pages_each = executor, len(spec.state_groups()), pages_each
        self.step = 0

    def run(self, spans: Sequence[tuple[int, int, Sequence[int]]]) -> list[np.ndarray]:
        """`spans`: (sequence, start, tokens) -> logits [tokens, vocab] of each."""
        rows = tuple(self._row(*span) for span in spans)
        self.step += 1
        logits = self.executor.submit(Batch(self.step, rows)).result().logits.copy()
        cuts = np.cumsum([len(row.tokens) for row in rows])[:-1]
        return np.split(logits, cuts)

    def _row(self, sequence: int, start: int, tokens: Sequence[int]) -> Row:
        used = -(-(start + len(tokens)) // PAGE_TOKENS)
        table = tuple(range(sequence * self.pages_each, sequence * self.pages_each + used))
        phase = "decode" if len(tokens) == 1 else "prefill"
        return Row(sequence, phase, start, tuple(int(t) for t in tokens), (table,) * self.groups, logits_from=0)
