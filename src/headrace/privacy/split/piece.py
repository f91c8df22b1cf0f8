"""A piece of a model on the reference backend, fed with tokens or with states.

An Executor takes tokens only. A piece in the middle of a model therefore has the wire for an embedding table: the
states of a step are written into it, and the step's tokens are the numbers of its rows. The reference backend reads
the table where it lies; that it does is tried when a piece is loaded. So every operation is the one that the plain
model runs, and its bits are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from headrace.backends.select import make_executor
from headrace.privacy.split.cut import Cut
from headrace.spec.batch import Batch, PageCopy, Phase, Row
from headrace.spec.errors import UnsupportedModel
from headrace.spec.executor import Limits
from headrace.spec.ledger import Ledger
from headrace.spec.model import PAGE_TOKENS
from headrace.spec.options import EngineOptions

Backend: TypeAlias = Literal["auto", "native", "reference"]
STEP = 128
"""Most tokens of one step, and of one message."""


class Piece:
    """`slots` sequences of at most `context` tokens, each with pages of its own, and `spare` pages beside them.

    `logits`: most tokens of a step whose logits are wanted.
    Raises UnsupportedModel where torch is not installed, and for states on a backend that copies its embedding.
    """

    def __init__(
        self, cut: Cut, slots: int = 1, context: int = 1024, threads: int | None = None, rows: int = STEP,
        logits: int = 1, spare: int = 0, backend: Backend = "reference",
    ) -> None:  # fmt: skip
        self.spec, self.table = cut.spec, cut.table
        self.context = min(context, cut.spec.context)
        self.rows = rows if cut.table is None else len(cut.table)
        self.each = -(-self.context // PAGE_TOKENS)
        self.spare = range(slots * self.each, slots * self.each + spare)
        self.groups = len(cut.spec.state_groups())
        limits = Limits((slots * self.each + spare,) * self.groups, self.rows, logits)
        options = EngineOptions(backend=backend, dtype="fp32", state_type="fp32", threads=threads)
        self._executor = make_executor(cut.spec, cut.weights, limits, Ledger(), options)
        self._step = 0
        if self.table is not None:
            self._try_table(self.table)

    def _try_table(self, table: np.ndarray) -> None:
        table[:2] = np.random.default_rng(0).standard_normal(table[:2].shape)
        if not np.array_equal(self.states(0, 0, table[:2].copy(), at=0), table[:2]):
            raise UnsupportedModel(
                "This backend copies its embedding, so no state can be handed to it; use the reference backend."
            )

    def states(self, slot: int, start: int, given: Sequence[int] | np.ndarray, at: int = -1) -> np.ndarray:
        """Runs tokens, or states float32 [n, hidden], at positions start, … of a slot: hidden state `at` [n, hidden].

        State 0 is what goes into the first block, -1 what comes out of the last one.
        """
        read = at % (len(self.spec.layers) + 1)
        parts = []
        for offset in range(0, len(given), self.rows):
            tokens = self._given(given[offset : offset + self.rows])
            row = self.row(slot, start + offset, tokens, reads=(read,))
            parts.append(self.submit((row,))[0])
        return np.concatenate(parts)

    def logits(self, slot: int, start: int, given: Sequence[int] | np.ndarray) -> np.ndarray:
        """Likewise the logits of every token, [n, vocab]."""
        parts = []
        for offset in range(0, len(given), self.rows):
            tokens = self._given(given[offset : offset + self.rows])
            batch = Batch(self._next(), (self.row(slot, start + offset, tokens, logits_from=0),))
            parts.append(self._executor.submit(batch).result().logits.copy())
        return np.concatenate(parts)

    def submit(self, rows: Sequence[Row], copies: Sequence[PageCopy] = ()) -> list[np.ndarray]:
        """The hidden state that each row reads, [tokens of the row, hidden]."""
        found = self._executor.submit(Batch(self._next(), tuple(rows), tuple(copies))).result().hidden
        return [found[index, row.reads[0]].copy() for index, row in enumerate(rows)]

    def row(
        self, slot: int, start: int, tokens: Sequence[int], reads: tuple[int, ...] = (), logits_from: int | None = None,
        last_page: int | None = None,
    ) -> Row:  # fmt: skip
        """A row on the pages of a slot, the last of which `last_page` may stand for."""
        used = -(-(start + len(tokens)) // PAGE_TOKENS)
        pages = list(range(slot * self.each, slot * self.each + used))
        if last_page is not None:
            pages[-1] = last_page
        phase: Phase = "decode" if len(tokens) == 1 else "prefill"
        return Row(slot, phase, start, tuple(tokens), (tuple(pages),) * self.groups, logits_from, reads)

    def _given(self, part: Sequence[int] | np.ndarray) -> Sequence[int]:
        if self.table is None:
            return [int(token) for token in part]
        self.table[: len(part)] = part
        return range(len(part))

    def _next(self) -> int:
        self._step += 1
        return self._step

    def close(self) -> None:
        """Frees weights and pages; a second call does nothing."""
        self._executor.close()
