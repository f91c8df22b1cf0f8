"""The admit-schedule-commit cycle without an engine: tokens are made up, steps are counted."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.schedule.core import Core, CoreOptions
from headrace.schedule.scheduler import Scheduler, ScheduleState
from headrace.schedule.sequence import SequenceState, Work
from headrace.schedule.store import StateStore
from headrace.spec.batch import Batch
from headrace.spec.errors import PagesExhausted
from headrace.spec.labels import Label


def made_core(pages: int = 32, **how) -> Core:
    defaults = {"groups": 1, "step_tokens": 64, "logit_rows": 32, "running": 8}
    return Core(CoreOptions(pages=pages, **(defaults | how)))


class Driver:
    """Runs a core as the engine does; the token after any others is a function of them."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.batches: list[Batch] = []
        self.logits: dict[int, int] = {}

    def open(self, id: int, tokens: list[int], principal: str = "a", pinned: bool = False) -> SequenceState:
        return self.core.open(id, list(tokens), Label(principal), "v", pinned)

    def extend(self, sequence: SequenceState, count: int) -> Work:
        length = len(sequence.tokens)
        return self.core.submit(sequence, "decode", length - 1, length + count)

    def step(self) -> Batch:
        core = self.core
        core.admit()
        decoding = {w.sequence.id for w in core.state.running if w.decoding}
        batch = core.schedule()
        self._check(batch, decoding)
        for index, work in core.commit(batch):
            row = batch.rows[index]
            self.logits[row.sequence] = self.logits.get(row.sequence, 0) + row.logit_count
            if row.start + len(row.tokens) == len(work.sequence.tokens) and not work.reads:
                if len(work.sequence.tokens) < work.most:
                    core.grow(work, sum(work.sequence.tokens) * 31 % 97)
                if len(work.sequence.tokens) >= work.most:
                    core.finish(work)
            elif row.start + len(row.tokens) == len(work.sequence.tokens):
                core.finish(work)
        core.check()
        self.batches.append(batch)
        return batch

    def _check(self, batch: Batch, decoding: set[int]) -> None:
        options = self.core.options
        assert batch.token_count <= options.step_tokens
        assert batch.logit_count <= options.logit_rows
        phases = [row.phase == "decode" for row in batch.rows]
        assert phases == sorted(phases, reverse=True), "a prefill came before a decode"
        still = {w.sequence.id for w in self.core.state.running}
        ran = {row.sequence for row in batch.rows}
        assert decoding & still <= ran, "a running decode was skipped"

    def run(self, limit: int = 5000) -> int:
        for count in range(limit):
            if not self.core.busy:
                return count
            assert self.step().rows, "nothing could run"
        raise AssertionError("never finished")

    def computed(self) -> int:
        return sum(batch.token_count for batch in self.batches)


def expected(tokens: list[int], count: int) -> list[int]:
    tokens = list(tokens)
    for _ in range(count):
        tokens.append(sum(tokens) * 31 % 97)
    return tokens


def test_decodes_run_in_every_step_beside_chunked_prefills() -> None:
    driver = Driver(made_core(step_tokens=8))
    short = driver.open(1, [1, 2, 3])
    driver.extend(short, 20)
    driver.step()
    long = driver.open(2, list(range(50)))
    driver.extend(long, 1)
    spans = [[(r.sequence, r.phase, len(r.tokens)) for r in driver.step().rows] for _ in range(4)]
    assert spans == [[(1, "decode", 1), (2, "prefill", 7)]] * 4
    driver.run()
    assert short.tokens == expected([1, 2, 3], 20)


def test_a_one_token_prompt_is_a_prefill() -> None:
    driver = Driver(made_core())
    driver.extend(driver.open(1, [5]), 2)
    assert [row.phase for _ in range(2) for row in driver.step().rows] == ["prefill", "decode"]


def test_logit_rows_limit_a_span() -> None:
    driver = Driver(made_core(step_tokens=64, logit_rows=4))
    sequence = driver.open(1, list(range(20)))
    driver.core.submit(sequence, "score", 10, 20)
    lengths = [len(driver.step().rows[0].tokens) for _ in range(3)]
    assert lengths == [14, 4, 2]
    assert driver.logits == {1: 10}


def test_no_more_run_than_the_budgets_let_decode() -> None:
    for how in ({"running": 3}, {"step_tokens": 3}, {"logit_rows": 3}):
        driver = Driver(made_core(**how))
        for id in range(1, 8):
            driver.extend(driver.open(id, [id]), 5)
        driver.step()
        assert len(driver.core.state.running) == 3
        driver.run()


def test_equal_prompts_are_computed_once() -> None:
    driver = Driver(made_core(pages=64, step_tokens=32))
    prompt = list(range(160))
    for id in range(1, 6):
        driver.extend(driver.open(id, prompt), 1)
    driver.run()
    # Five times the last page: the token whose logits are wanted lies in it.
    assert driver.computed() == 144 + 5 * 16
    assert driver.core.state.computing == {}


def test_equal_tokens_after_a_fork_are_computed_once_and_without_queueing() -> None:
    driver = Driver(made_core(pages=64, step_tokens=256))
    parent = driver.open(1, list(range(20)))
    driver.extend(parent, 1)
    driver.run()
    kids = [driver.core.fork(parent, id) for id in range(2, 7)]
    for kid in kids:
        kid.tokens += range(100)
        driver.extend(kid, 1)
    before = driver.computed()
    steps = driver.run()
    # 21 + 100 tokens: the first kid computes from token 20 on, the others from token 112 on.
    assert driver.computed() - before == 101 + 4 * 9
    assert steps == 2


def test_other_principals_compute_for_themselves() -> None:
    driver = Driver(made_core(pages=64))
    for id, principal in enumerate("ab", 1):
        driver.extend(driver.open(id, [7] * 40, principal), 1)
    driver.run()
    assert driver.computed() == 80


def test_without_a_prefix_cache_everything_is_computed() -> None:
    driver = Driver(made_core(pages=64, prefix_cache=False))
    for id in (1, 2):
        driver.extend(driver.open(id, [7] * 40), 1)
    driver.run()
    assert driver.computed() == 80 and driver.core.store.cached == 0


def test_waiting_for_an_equal_prefix_ends_when_its_owner_leaves() -> None:
    driver = Driver(made_core(step_tokens=8))
    owner, other = driver.open(1, [3] * 40), driver.open(2, [3] * 40)
    work = driver.extend(owner, 1)
    driver.extend(other, 1)
    driver.step()
    assert [w.sequence.id for w in driver.core.state.waiting] == [2]
    driver.core.finish(work)
    driver.core.drop(owner)
    driver.run()
    assert other.tokens == expected([3] * 40, 1)
    assert driver.core.state.computing == {}


def test_the_youngest_is_preempted_and_resumes_with_the_same_tokens() -> None:
    driver = Driver(made_core(pages=6, prefix_cache=False))
    sequences = [driver.open(id, [id] * 10) for id in (1, 2, 3)]
    for sequence in sequences:
        driver.extend(sequence, 60)
    order: list[int] = []
    while driver.core.busy:
        before = driver.core.state.preempted
        running = [w.sequence.id for w in driver.core.state.running]
        driver.step()
        if driver.core.state.preempted > before and running:
            order.append(
                next(id for id in reversed(running) if id not in {r.sequence for r in driver.batches[-1].rows})
            )
    assert driver.core.state.preempted > 0 and order[0] == 3 and 1 not in order
    assert [s.tokens for s in sequences] == [expected([id] * 10, 60) for id in (1, 2, 3)]


def test_a_decode_without_a_page_waits_instead_of_standing_still() -> None:
    """Two decodes fill the store; the younger needs a page first and must not block while it holds its own."""
    driver = Driver(made_core(pages=2, prefix_cache=False))
    older, younger = driver.open(1, [1] * 4), driver.open(2, [2] * 15)
    driver.extend(older, 12)
    driver.extend(younger, 10)
    driver.run()  # Driver._check fails where a running decode is skipped
    assert older.tokens == expected([1] * 4, 12) and younger.tokens == expected([2] * 15, 10)


def test_pages_of_idle_and_waiting_sequences_are_reclaimed_longest_idle_first() -> None:
    driver = Driver(made_core(pages=4, running=1))
    first, second = driver.open(1, [1] * 20), driver.open(2, [2] * 20)
    for sequence in (first, second):
        driver.extend(sequence, 1)
        driver.run()
    assert (len(first.pages), len(second.pages)) == (2, 2)
    third = driver.open(3, [3] * 5)
    driver.extend(third, 1)
    driver.run()
    assert (len(first.pages), len(second.pages), driver.core.state.reclaimed) == (0, 2, 1)
    fourth = driver.open(4, [4] * 60)
    driver.extend(fourth, 1)
    driver.step()
    driver.extend(second, 1)  # waits with its pages
    driver.run()
    assert fourth.tokens == expected([4] * 60, 1)
    assert second.tokens == expected([2] * 20, 2)


def test_pinned_pages_are_never_taken() -> None:
    driver = Driver(made_core(pages=8, running=4))
    older = driver.open(1, [1] * 4)
    pinned = driver.open(2, [2] * 40, pinned=True)
    driver.extend(older, 70)
    driver.extend(pinned, 1)
    others = [driver.open(id, [id] * 4) for id in (3, 4)]
    for sequence in others:
        driver.extend(sequence, 70)
    held: list[int] = []
    while driver.core.busy:
        driver.step()
        assert pinned.pages[: len(held)] == held
        held = list(pinned.pages)
    assert len(held) == 3 and driver.core.state.preempted > 0


def test_a_running_pinned_sequence_is_not_preempted() -> None:
    driver = Driver(made_core(pages=9, running=4, prefix_cache=False))
    older = [driver.open(id, [id] * 4) for id in (1, 2)]
    for sequence in older:
        driver.extend(sequence, 70)
    driver.step()
    pinned = driver.open(3, [2] * 33, pinned=True)
    driver.extend(pinned, 30)
    held: list[int] = []
    while driver.core.busy:
        driver.step()
        assert pinned.pages[: len(held)] == held
        held = list(pinned.pages)
    assert [s.tokens for s in older] == [expected([id] * 4, 70) for id in (1, 2)]
    assert pinned.tokens == expected([2] * 33, 30) and driver.core.state.preempted > 0


def test_what_can_never_fit_is_refused_with_numbers() -> None:
    core = made_core(pages=8)
    core.open(1, [1] * 32, Label("a"), "v", pinned=True)
    plain = core.open(2, [1], Label("a"), "v")
    core.finish(core.submit(plain, "decode", 0, 96))
    with pytest.raises(PagesExhausted, match=r"97 tokens, 7 pages, but only 6 of 8 .*2 are pinned"):
        core.submit(plain, "decode", 0, 97)
    with pytest.raises(PagesExhausted, match="5 of 8 pages"):
        core.open(3, [1] * 48, Label("a"), "v", pinned=True)
    core.check()
    assert 3 not in core.sequences and not core.busy


def test_a_pin_that_would_starve_queued_work_is_refused() -> None:
    driver = Driver(made_core(pages=10))
    big = driver.open(1, [1])
    driver.extend(big, 127)
    driver.step()
    with pytest.raises(PagesExhausted, match="pages"):
        driver.open(2, [2] * 48, pinned=True)
    driver.open(3, [2] * 32, pinned=True)
    driver.run()
    assert len(big.tokens) == 128


def test_encoder_rows_are_whole_or_wait() -> None:
    driver = Driver(made_core(step_tokens=32, encoder=True))
    for id, length in ((1, 20), (2, 20), (3, 10)):
        sequence = driver.open(id, [id] * length)
        driver.core.submit(sequence, "read", 0, length, reads=(1,))
    spans = [[(r.sequence, r.start, len(r.tokens)) for r in driver.step().rows] for _ in range(2)]
    assert spans == [[(1, 0, 20), (3, 0, 10)], [(2, 0, 20)]]
    assert driver.core.store.cached == 0


def test_dropping_ends_work_and_hidden_forks_leave_with_theirs() -> None:
    driver = Driver(made_core())
    sequence = driver.open(1, [1] * 20)
    driver.extend(sequence, 30)
    driver.step()
    driver.core.drop(sequence)
    assert not driver.core.busy and driver.core.store.used == 0
    parent = driver.open(2, [2] * 20)
    hidden = driver.core.fork_hidden(parent)
    work = driver.core.submit(hidden, "score", 0, 20)
    driver.step()
    driver.core.finish(work)
    assert set(driver.core.sequences) == {2} and driver.core.store.used == 0
    driver.core.check()


def test_commit_ignores_rows_whose_work_has_left() -> None:
    driver = Driver(made_core())
    sequence = driver.open(1, [1] * 20)
    driver.extend(sequence, 5)
    driver.core.admit()
    batch = driver.core.schedule()
    driver.core.drop(sequence)
    assert driver.core.commit(batch) == []
    driver.core.check()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(3, 12),
    st.integers(1, 40),
    st.integers(1, 6),
    st.booleans(),
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 20), st.integers(0, 3), st.integers(0, 4)), max_size=10),
)
def test_everything_finishes_whatever_the_sizes(pages: int, step: int, running: int, cache: bool, asked: list) -> None:
    driver = Driver(made_core(pages=pages, step_tokens=step, running=running, prefix_cache=cache))
    wanted = []
    for id, (length, count, kind, wait) in enumerate(asked, 1):
        tokens = [kind] * length
        if length + count > pages * 16:
            continue
        sequence = driver.open(id, tokens)
        driver.extend(sequence, count)
        wanted.append((sequence, expected(tokens, count)))
        for _ in range(wait):
            driver.step()
    driver.run()
    assert all(sequence.tokens == tokens for sequence, tokens in wanted)
    for sequence, _ in wanted:
        driver.core.drop(sequence)
    assert driver.core.store.used == 0 and driver.core.state.computing == {}


def test_waiting_for_an_equal_prefix_costs_nothing_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(made_core(pages=200, step_tokens=16))
    for id in range(1, 51):
        driver.extend(driver.open(id, list(range(800))), 1)
    for _ in range(3):
        driver.step()
    looked: list[bytes] = []
    find = driver.core.store.find
    monkeypatch.setattr(driver.core.store, "find", lambda key: looked.append(key) or find(key))
    for _ in range(20):
        driver.step()
    assert len(looked) < 50, "every waiting work looks its whole prefix up in every step"
    driver.run()


def test_one_pinned_sequence_never_takes_the_pages_of_another() -> None:
    store = StateStore(3)
    state = ScheduleState(store, 1)

    def running(id: int, length: int, computed: int, pinned: bool, produced: int = 0) -> SequenceState:
        sequence = SequenceState(id, [id] * length, Label("a"), "v", pinned)
        sequence.prepare(computed, store)
        sequence.computed = computed
        state.running.append(Work(sequence, "decode", length - 1, 48, id, id, produced=produced))
        return sequence

    running(1, 10, 0, pinned=True)
    younger = running(2, 32, 16, pinned=True)
    running(3, 17, 16, pinned=False, produced=1)
    held = list(younger.pages)
    batch = Scheduler(8).schedule(state, 64)
    assert [row.sequence for row in batch.rows] == [3]
    assert younger.pages == held and state.preempted == 0


def preempted_first(values: list[float], trees: list[int]) -> int:
    """Which of several sequences, all decoding and opened in order, gives up its pages when these run out."""
    driver = Driver(made_core(pages=2 * len(values) + 1))
    ids = [id + 10 for id in range(len(values))]
    for id, value, tree in zip(ids, values, trees, strict=True):
        sequence = driver.open(id, [id] * 16)
        sequence.tree = tree
        driver.core.submit(sequence, "decode", 15, 16 + 40, value=value)
    while not driver.core.state.preempted:
        driver.step()
    (victim,) = [work.sequence.id for work in driver.core.state.waiting]
    driver.run()
    return victim - 10


def test_pages_are_taken_from_the_least_valuable_of_a_tree() -> None:
    assert preempted_first([0.9, 0.1, 0.5, 0.7], [1, 1, 1, 1]) == 1
    assert preempted_first([0.1, 0.9, 0.5, 0.7], [1, 1, 1, 1]) == 0
    assert preempted_first([0.5] * 4, [1, 1, 1, 1]) == 3, "of equal ones, the youngest"


def test_the_value_in_one_tree_does_not_matter_to_another() -> None:
    assert preempted_first([0.1, 0.1, 0.8, 0.9], [1, 1, 2, 2]) == 2, "the younger tree, there the less valuable"
    assert preempted_first([0.0, 9.0, 9.0, 9.0], [1, 2, 3, 4]) == 3
