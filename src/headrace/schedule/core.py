"""The admit-schedule-commit cycle that the engine and the simulator both drive.

    core.admit(); batch = core.schedule(); ...run it...; ready = core.commit(batch)
    for work in ready: core.grow(work, token) or core.finish(work)

Nothing here knows of logits, text, threads or time.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import dropwhile

from headrace.schedule.scheduler import Scheduler, ScheduleState, forget_computing
from headrace.schedule.sequence import SequenceState, Work
from headrace.schedule.store import StateStore, pages_for
from headrace.spec.batch import Batch, Phase
from headrace.spec.errors import PagesExhausted
from headrace.spec.labels import Label
from headrace.spec.model import PAGE_TOKENS


@dataclass(frozen=True, slots=True)
class CoreOptions:
    """`pages`: size of the store. `groups`: state groups. `encoder`: rows come whole and nothing is cached."""

    pages: int
    groups: int
    step_tokens: int
    logit_rows: int
    running: int
    prefix_cache: bool = True
    encoder: bool = False


class Core:
    """Open sequences, their work, and the pages they share."""

    def __init__(self, options: CoreOptions) -> None:
        self.options = options
        self.store = StateStore(options.pages)
        self.state = ScheduleState(self.store, options.groups)
        self.scheduler = Scheduler(options.logit_rows, whole_rows=options.encoder)
        self.sequences: dict[int, SequenceState] = {}
        self.admitted = 0
        self._works: dict[int, Work] = {}
        self._pinned: dict[int, SequenceState] = {}
        self._next_order = 0
        self._next_hidden = -1

    # -- sequences ---------------------------------------------------------------------------------

    def open(
        self,
        id: int,
        tokens: list[int],
        label: Label,
        variant: str,
        pinned: bool = False,
        adapter: str | None = None,
        adapter_scale: float = 1.0,
    ) -> SequenceState:
        """Raises PagesExhausted when a pin would leave too few pages: half, or what work under way needs."""
        sequence = SequenceState(id, tokens, label, variant, pinned, adapter=adapter, adapter_scale=adapter_scale)
        self._check_pins(sequence, len(tokens))
        return self._add(sequence)

    def fork(self, parent: SequenceState, id: int) -> SequenceState:
        return self._add(parent.fork(id, self.store))

    def fork_hidden(self, parent: SequenceState) -> SequenceState:
        """A fork for the engine's own use; it has a negative id and is dropped with its work."""
        self._next_hidden -= 1
        return self.fork(parent, self._next_hidden)

    def truncate(self, sequence: SequenceState, length: int) -> None:
        """Forgets the tokens of an idle sequence from `length` on."""
        sequence.truncate(length, self.store)
        if not sequence.pages:
            self.state.idle.pop(sequence.id, None)

    def drop(self, sequence: SequenceState) -> None:
        """Frees the sequence, with the work it still has."""
        work = self._works.get(sequence.id)
        if work is not None:
            self.finish(work)
        if self.sequences.pop(sequence.id, None) is not None:
            self.state.idle.pop(sequence.id, None)
            self._pinned.pop(sequence.id, None)
            sequence.forget_state(0, self.store)

    def _add(self, sequence: SequenceState) -> SequenceState:
        self.sequences[sequence.id] = sequence
        if sequence.pinned:
            self._pinned[sequence.id] = sequence
        self._rest(sequence)
        return sequence

    def _rest(self, sequence: SequenceState) -> None:
        """Notes an idle sequence as the last one to give up its pages."""
        if sequence.pages:
            self.state.idle[sequence.id] = sequence

    # -- work --------------------------------------------------------------------------------------

    def submit(
        self,
        sequence: SequenceState,
        phase: Phase,
        wanted_from: int,
        most: int,
        reads: tuple[int, ...] = (),
        owner: object = None,
        value: float = 0.0,
    ) -> Work:
        """Queues work. Raises PagesExhausted when it could not run even with all other pages free."""
        self._check_fits(sequence, most)
        if sequence.pinned:
            self._check_pins(sequence, most)
        self._next_order += 1
        order = self._next_order
        lead = min((w.lead for w in self._works.values() if w.sequence.tree == sequence.tree), default=order)
        work = Work(sequence, phase, wanted_from, most, order, lead, reads, owner, value=value)
        self._works[sequence.id] = work
        self.state.idle.pop(sequence.id, None)
        self.state.waiting.append(work)
        return work

    def finish(self, work: Work) -> None:
        """Ends a work at any time; its sequence becomes idle and keeps its pages while nobody needs them."""
        state = self.state
        if self._works.get(work.sequence.id) is not work:
            return
        del self._works[work.sequence.id]
        if work in state.running:
            state.running.remove(work)
        elif work in state.waiting:
            state.waiting.remove(work)
        forget_computing(state, work)
        if work.sequence.id < 0:
            self.drop(work.sequence)
        elif work.sequence.id in self.sequences:
            self._rest(work.sequence)

    @property
    def busy(self) -> bool:
        return bool(self.state.running or self.state.waiting)

    def work_of(self, id: int) -> Work | None:
        """The unfinished work of a sequence."""
        return self._works.get(id)

    def works(self) -> list[Work]:
        return list(self._works.values())

    @property
    def unfinished(self) -> int:
        return len(self._works)

    # -- the cycle ---------------------------------------------------------------------------------

    def admit(self) -> list[Work]:
        """Moves waiting work that fits to running, in order. Never takes pages from running work."""
        admitted = []
        most = min(self.options.running, self.options.step_tokens, self.options.logit_rows)
        for work in list(self.state.waiting):
            if len(self.state.running) >= most:
                break
            if self._awaits_equal_prefix(work):
                continue
            if self.state.running and not self._has_room(work):
                break
            self._start(work)
            admitted.append(work)
        self.admitted += len(admitted)
        return admitted

    def schedule(self) -> Batch:
        return self.scheduler.schedule(self.state, self.options.step_tokens)

    def commit(self, batch: Batch) -> list[tuple[int, Work]]:
        """Records that the batch has run. Returns (row index, work) of every row whose work still lives."""
        alive = []
        for index, row in enumerate(batch.rows):
            work = self._works.get(row.sequence)
            if work is None or work not in self.state.running:
                continue
            sequence = work.sequence
            before, sequence.computed = sequence.computed, row.start + len(row.tokens)
            if self.options.prefix_cache and not self.options.encoder:
                for key in sequence.register_full_pages(before, self.store):
                    self.state.computing.pop(key, None)
            alive.append((index, work))
        return alive

    def grow(self, work: Work, token: int) -> None:
        """Appends a drawn token; the next step computes it."""
        work.sequence.tokens.append(token)
        work.produced += 1
        work.wanted_from = len(work.sequence.tokens) - 1

    def check(self) -> None:
        """Raises AssertionError unless every page is accounted for exactly."""
        self.store.check(sequence.pages for sequence in self.sequences.values())
        for sequence in self.sequences.values():
            assert sequence.computed <= len(sequence.tokens), "more computed than owned"
            assert len(sequence.pages) == pages_for(sequence.computed), "table and computed tokens differ"
        busy = {w.sequence.id for w in [*self.state.running, *self.state.waiting]}
        assert busy == set(self._works), "a work is neither running nor waiting"
        idle = {s.id for s in self.sequences.values() if s.pages and s.id not in busy}
        assert idle == set(self.state.idle), "an idle sequence with pages is not known as such"

    # -- internals ---------------------------------------------------------------------------------

    def _start(self, work: Work) -> None:
        sequence, state = work.sequence, self.state
        limit = min(work.wanted_from, len(sequence.tokens) - 1)
        if self.options.encoder:
            limit = 0
        sequence.forget_state(limit, self.store)
        if self.options.prefix_cache:
            sequence.attach_prefix(limit, self.store)
        if work.cached_tokens is None:
            work.cached_tokens = sequence.computed
        if self.options.prefix_cache and not self.options.encoder:
            full = len(sequence.tokens) // PAGE_TOKENS
            for key in sequence.chain(full)[sequence.computed // PAGE_TOKENS :]:
                state.computing.setdefault(key, work)
        state.waiting.remove(work)
        state.running.append(work)

    def _awaits_equal_prefix(self, work: Work) -> bool:
        """Whether a running work is about to fill the next page this one needs: then waiting shares it."""
        sequence = work.sequence
        if not self.options.prefix_cache or not self.state.computing:
            return False
        if work.awaited in self.state.computing:
            return True
        full = min(work.wanted_from, len(sequence.tokens) - 1) // PAGE_TOKENS
        keys = sequence.chain(full)[sequence.computed // PAGE_TOKENS :]
        missing = list(dropwhile(lambda key: self.store.find(key) is not None, keys))
        if not missing or missing[0] not in self.state.computing:
            return False
        work.awaited = next(key for key in reversed(missing) if key in self.state.computing)
        return True

    def _has_room(self, work: Work) -> bool:
        """Whether all known tokens of `work` and one page for each running sequence fit without preemption."""
        idle = sum(len(s.pages) for s in self.state.idle.values() if not s.pinned)
        need = work.sequence.pages_missing(len(work.sequence.tokens) + 1, self.store)
        return need + len(self.state.running) <= self.store.available + idle

    @property
    def pinned_pages(self) -> int:
        """Pages that pinned sequences may come to hold."""
        return sum(pages_for(self._most(sequence)) for sequence in self._pinned.values())

    def _pinned_pages(self, besides: SequenceState) -> int:
        others = (s for s in self._pinned.values() if s is not besides)
        return sum(pages_for(self._most(s)) for s in others)

    def _most(self, sequence: SequenceState) -> int:
        work = self._works.get(sequence.id)
        return work.most if work else len(sequence.tokens)

    def _check_fits(self, sequence: SequenceState, most: int) -> None:
        pinned = self._pinned_pages(sequence)
        need, can = pages_for(most), self.options.pages - pinned
        if need > can:
            held = f" ({pinned} are pinned)" if pinned else ""
            raise PagesExhausted(
                f"The request may grow to {most} tokens, {need} pages, but only {can} of {self.options.pages} pages "
                f"can ever be free{held}; ask for fewer tokens or start with more --state-memory."
            )

    def _check_pins(self, sequence: SequenceState, most: int) -> None:
        if not sequence.pinned:
            return
        total = self._pinned_pages(sequence) + pages_for(most)
        if total > self.options.pages // 2:
            raise PagesExhausted(
                f"Pinned sequences would hold {total} of {self.options.pages} pages, more than half; "
                f"drop one or start with more --state-memory."
            )
        largest = max((pages_for(w.most) for w in self._works.values() if not w.sequence.pinned), default=0)
        if total + largest > self.options.pages:
            raise PagesExhausted(
                f"Pinned sequences would hold {total} of {self.options.pages} pages, but a request under way may need "
                f"{largest}; wait until it ends or start with more --state-memory."
            )
