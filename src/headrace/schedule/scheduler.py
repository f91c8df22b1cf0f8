"""Which tokens run in the next step: decodes first, then prefill chunks up to the token budget.

Continuous batching (Orca, OSDI 2022) with decode-maximal batches (SARATHI, arXiv 2308.16369).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from headrace.schedule.sequence import SequenceState, Work
from headrace.schedule.store import StateStore, pages_for
from headrace.spec.batch import Batch, PageCopy, Row
from headrace.spec.model import PAGE_TOKENS


@dataclass(slots=True)
class ScheduleState:
    """Everything a scheduler looks at. `idle`: sequences with pages but without work, longest idle first."""

    store: StateStore
    groups: int
    running: list[Work] = field(default_factory=list)
    waiting: deque[Work] = field(default_factory=deque)
    idle: dict[int, SequenceState] = field(default_factory=dict)
    computing: dict[bytes, Work] = field(default_factory=dict)
    """Keys of full pages that a running work is about to fill; an equal prefix waits for them."""
    step: int = 0
    preempted: int = 0
    reclaimed: int = 0
    """Idle or waiting sequences that had to give up their pages."""


class Scheduler:
    """`schedule(state, token_budget)` gives the next Batch; it takes pages and may preempt."""

    def __init__(self, logit_rows: int, whole_rows: bool = False) -> None:
        self.logit_rows = logit_rows
        self.whole_rows = whole_rows

    def schedule(self, state: ScheduleState, token_budget: int) -> Batch:
        rows: list[Row] = []
        copies: list[PageCopy] = []
        placed: set[Work] = set()
        tokens, logits = token_budget, self.logit_rows
        for work in sorted(state.running, key=lambda w: (not w.decoding, w.rank)):
            if tokens <= 0 or work not in state.running:
                continue
            count = self._span(work, tokens, logits)
            count = self._fit(state, work, count, placed)
            if count == 0:
                continue
            row_copies = work.sequence.prepare(work.sequence.computed + count, state.store)
            copies += [PageCopy(g, c.source, c.target) for c in row_copies for g in range(state.groups)]
            row = self._row(state, work, count)
            rows.append(row)
            placed.add(work)
            tokens -= count
            logits -= row.logit_count
        state.step += 1
        return Batch(state.step, tuple(rows), tuple(copies))

    def _span(self, work: Work, tokens: int, logits: int) -> int:
        """Tokens of `work` that the budgets allow; an encoder's row is never cut."""
        if self.whole_rows:
            return work.remaining if work.remaining <= tokens else 0
        count = min(work.remaining, tokens)
        if not work.reads:
            before_wanted = max(work.wanted_from - work.sequence.computed, 0)
            count = min(count, before_wanted + logits)
        return count

    def _fit(self, state: ScheduleState, work: Work, count: int, placed: set[Work]) -> int:
        """The tokens of `count` for which pages can be had, after idle and younger sequences gave up theirs.

        A decode that finds none is itself preempted: a running decode is never skipped.
        """
        sequence, store = work.sequence, state.store

        def short() -> int:
            return sequence.pages_missing(sequence.computed + count, store) - store.available

        while count > 0 and short() > 0:
            if self._reclaim(state):
                state.reclaimed += 1
                continue
            if sequence.give_up_cached_page(store):
                continue
            victim = self._victim(state, work, placed)
            if victim is not None:
                preempt(state, victim)
            elif work.decoding and not sequence.pinned:
                preempt(state, work)  # standing still, it would hold pages that older work may need
                return 0
            elif self.whole_rows:
                return 0
            else:
                count = min(count - 1, self._room(state, sequence))
        return max(count, 0)

    @staticmethod
    def _victim(state: ScheduleState, work: Work, placed: set[Work]) -> Work | None:
        """The work of lowest rank below `work` that has no row yet; never a pinned one."""
        ranked = (w for w in state.running if w not in placed and not w.sequence.pinned and w.rank > work.rank)
        return max(ranked, key=lambda w: w.rank, default=None)

    @staticmethod
    def _room(state: ScheduleState, sequence: SequenceState) -> int:
        """Tokens that fit the pages at hand."""
        spare = state.store.available - sequence.pages_missing(sequence.computed, state.store)
        return (len(sequence.pages) + max(spare, 0)) * PAGE_TOKENS - sequence.computed if spare >= 0 else 0

    @staticmethod
    def _reclaim(state: ScheduleState) -> bool:
        """Takes the pages of the longest idle sequence, else of the youngest waiting one; they are recomputed later."""
        for sequence in state.idle.values():
            if not sequence.pinned:
                sequence.forget_state(0, state.store)
                del state.idle[sequence.id]
                return True
        for work in reversed(state.waiting):
            if work.sequence.pages and not work.sequence.pinned:
                work.sequence.forget_state(0, state.store)
                return True
        return False

    @staticmethod
    def _row(state: ScheduleState, work: Work, count: int) -> Row:
        sequence = work.sequence
        start = sequence.computed
        first = max(work.wanted_from - start, 0)
        wanted = None if work.reads or first >= count else first
        phase = work.phase if work.phase != "decode" or work.decoding else "prefill"
        return Row(
            sequence.id,
            phase,
            start,
            tuple(sequence.tokens[start : start + count]),
            (tuple(sequence.pages[: pages_for(start + count)]),) * state.groups,
            wanted,
            work.reads,
            sequence.adapter,
            sequence.adapter_scale,
        )


def preempt(state: ScheduleState, work: Work) -> None:
    """Takes a running work's pages; it waits in front of all that rank below it and recomputes what is gone."""
    state.running.remove(work)
    forget_computing(state, work)
    work.sequence.forget_state(0, state.store)
    place = sum(1 for other in state.waiting if other.rank < work.rank)
    state.waiting.insert(place, work)
    state.preempted += 1


def forget_computing(state: ScheduleState, work: Work) -> None:
    for key in [key for key, owner in state.computing.items() if owner is work]:
        del state.computing[key]
