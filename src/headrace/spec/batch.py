"""One engine step as plain data: the scheduler makes it, an executor runs it, a cost model prices it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Phase: TypeAlias = Literal["prefill", "decode", "verify", "score", "read", "finetune"]


@dataclass(frozen=True, slots=True)
class Row:
    """A span of one sequence: `tokens` stand at logical positions start, start + 1, …

    `pages[g]` is the page table of state group g; it covers every position up to the span's end.
    `logits_from`: logits are wanted for the span's tokens from this offset on (None: for none).
    `reads`: indices of hidden states wanted for every token of the span.
    `adapter`: name of one that the executor has, at the strength `adapter_scale`; at 0 it adds nothing.
    """

    sequence: int
    phase: Phase
    start: int
    tokens: tuple[int, ...]
    pages: tuple[tuple[int, ...], ...]
    logits_from: int | None = None
    reads: tuple[int, ...] = ()
    adapter: str | None = None
    adapter_scale: float = 1.0

    @property
    def logit_count(self) -> int:
        return 0 if self.logits_from is None else len(self.tokens) - self.logits_from


@dataclass(frozen=True, slots=True)
class PageCopy:
    """Copy page `source` to `target` in state group `group`, before the step's rows run."""

    group: int
    source: int
    target: int


@dataclass(frozen=True, slots=True)
class Batch:
    """All rows of one step; their tokens lie one after the other in one flat buffer."""

    step: int
    rows: tuple[Row, ...]
    copies: tuple[PageCopy, ...] = field(default=())

    @property
    def token_count(self) -> int:
        return sum(len(row.tokens) for row in self.rows)

    @property
    def logit_count(self) -> int:
        return sum(row.logit_count for row in self.rows)
