"""Pages: reference counts, eviction order, prefix keys."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.schedule.sequence import SequenceState
from headrace.schedule.store import StateStore, page_key, pages_for, root_key
from headrace.spec.labels import Label

LABEL = Label("a")


def take(store: StateStore, count: int) -> list[int]:
    pages = [store.allocate() for _ in range(count)]
    assert None not in pages
    return pages  # type: ignore[return-value]


def filled(store: StateStore, tokens: list[int], label: Label = LABEL) -> SequenceState:
    """A sequence whose tokens are all computed and whose full pages can be found."""
    sequence = SequenceState(1, list(tokens), label, "v")
    sequence.prepare(len(tokens), store)
    sequence.computed = len(tokens)
    sequence.register_full_pages(0, store)
    return sequence


@pytest.mark.parametrize(("tokens", "pages"), [(0, 0), (1, 1), (16, 1), (17, 2), (32, 2)])
def test_pages_for(tokens: int, pages: int) -> None:
    assert pages_for(tokens) == pages


def test_references_count_every_holder() -> None:
    store = StateStore(2)
    (page,) = take(store, 1)
    store.share([page])
    assert store.references(page) == 2 and not store.writable(page)
    store.release([page])
    assert store.references(page) == 1 and store.writable(page)
    assert store.used == 1
    store.release([page])
    assert (store.used, store.available, store.cached) == (0, 2, 0)
    with pytest.raises(AssertionError, match="more often"):
        store.release([page])


def test_nothing_is_allocated_beyond_the_total() -> None:
    store = StateStore(2)
    assert sorted(take(store, 2)) == [0, 1]
    assert store.allocate() is None


def test_free_pages_go_before_cached_ones() -> None:
    store = StateStore(3)
    pages = take(store, 1)
    store.register(pages[0], b"k")
    store.release(pages)
    take(store, 2)
    assert store.find(b"k") == pages[0]
    assert take(store, 1) == pages
    assert store.find(b"k") is None


def test_the_deepest_page_is_evicted_first() -> None:
    store = StateStore(4)
    sequence = filled(store, list(range(64)))
    keys, pages = sequence.chain(4), list(sequence.pages)
    sequence.forget_state(0, store)
    for depth in (3, 2, 1, 0):
        assert [store.find(key) for key in keys[: depth + 1]] == pages[: depth + 1]
        assert store.allocate() == pages[depth]
        assert store.find(keys[depth]) is None


def test_the_least_recently_used_chain_is_evicted_first() -> None:
    store = StateStore(2)
    old, new = filled(store, [1] * 16), filled(store, [2] * 16)
    old.forget_state(0, store)
    new.forget_state(0, store)
    assert old.attach_prefix(16, store) == 16
    old.forget_state(0, store)
    take(store, 1)
    assert store.find(old.chain(1)[0]) is not None
    assert store.find(new.chain(1)[0]) is None


def test_the_first_of_two_equal_pages_stays_findable() -> None:
    store = StateStore(3)
    first, second = filled(store, [1] * 16), filled(store, [1] * 16)
    key = first.chain(1)[0]
    assert store.find(key) == first.pages[0] != second.pages[0]
    second.forget_state(0, store)
    assert store.cached == 0
    first.forget_state(0, store)
    assert store.cached == 1
    store.check([])


def test_a_page_keeps_its_first_key() -> None:
    store = StateStore(1)
    (page,) = take(store, 1)
    store.register(page, b"a")
    store.register(page, b"b")
    assert store.find(b"a") == page and store.find(b"b") is None


def test_a_page_promised_to_the_cache_is_copied_before_it_is_written() -> None:
    store = StateStore(4)
    sequence = filled(store, [1] * 32)
    promised = sequence.pages[1]
    sequence.truncate(20, store)
    sequence.tokens += [2]
    assert sequence.pages_missing(21, store) == 1
    (copy,) = sequence.prepare(21, store)
    assert (copy.source, copy.target) == (promised, sequence.pages[1])
    assert store.cached == 1


def test_a_promised_page_is_given_up_where_there_is_none_to_copy_it_to() -> None:
    store = StateStore(2)
    held = filled(store, [1] * 16)
    held.truncate(10, store)
    held.tokens += [2] * 6
    assert held.give_up_cached_page(store) and not held.give_up_cached_page(store)
    assert held.prepare(16, store) == [] and len(held.pages) == 1
    assert store.find(filled(StateStore(1), [1] * 16).keys[0]) is None and store.cached == 0
    store.check([held.pages])


def test_a_cleared_cache_hits_nothing_and_frees_what_nobody_holds() -> None:
    store = StateStore(3)
    held, gone = filled(store, [1] * 16), filled(store, [2] * 16)
    gone.forget_state(0, store)
    store.clear_cache()
    assert store.find(held.chain(1)[0]) is None
    assert (store.used, store.cached) == (1, 0)
    store.check([held.pages])


@pytest.mark.parametrize("broken", [[], [[0], [0]], [[1]]])
def test_check_finds_wrong_counts(broken: list[list[int]]) -> None:
    store = StateStore(2)
    assert store.allocate() == 0
    store.check([[0]])
    with pytest.raises(AssertionError):
        store.check(broken)


# -- keys ----------------------------------------------------------------------------------------------


def test_keys_depend_on_domain_variant_parent_and_tokens() -> None:
    roots = [root_key(d, v) for d, v in [("a", "m"), ("b", "m"), ("a", "n"), ("am", ""), ("", "am"), ("m", "a")]]
    pages = [page_key(root, tokens) for root in roots for tokens in ([1] * 16, [1] * 15 + [2], [2] + [1] * 15)]
    assert len({*roots, *pages}) == len(roots) + len(pages)
    assert page_key(pages[0], [1] * 16) not in pages


def test_a_principal_cannot_name_itself_into_a_shared_domain() -> None:
    domains = [Label("x").domain, Label("shared:x").domain, Label("a", "x").domain, Label("a", "shared:x").domain]
    assert len(set(domains)) == 4
    assert Label("a", "x").domain == Label("b", "x").domain


def test_other_domains_never_hit() -> None:
    store = StateStore(4)
    filled(store, [1] * 16, Label("a"))
    assert SequenceState(2, [1] * 17, Label("a"), "v").attach_prefix(16, store) == 16
    assert SequenceState(3, [1] * 17, Label("b"), "v").attach_prefix(16, store) == 0
    assert SequenceState(4, [1] * 17, Label("a"), "w").attach_prefix(16, store) == 0


# -- sequences -----------------------------------------------------------------------------------------


def test_keys_of_truncated_tokens_are_forgotten() -> None:
    store = StateStore(4)
    sequence = filled(store, [1] * 48)
    old = sequence.chain(3)
    sequence.truncate(20, store)
    sequence.tokens += [2] * 28
    fresh = sequence.chain(3)
    assert fresh[0] == old[0] and fresh[1] != old[1] and fresh[2] != old[2]
    assert (sequence.computed, len(sequence.pages)) == (20, 2)


def test_a_fork_shares_pages_and_each_copies_only_while_shared() -> None:
    store = StateStore(4)
    parent = filled(store, [1] * 20)
    kid = parent.fork(2, store)
    assert kid.pages == parent.pages and store.used == 2
    assert len(kid.prepare(21, store)) == 1
    assert parent.prepare(21, store) == []
    store.check([parent.pages, kid.pages])


def test_a_prefix_continues_the_pages_a_sequence_has() -> None:
    """Siblings that were given equal tokens after a fork still share what the first has computed."""
    store = StateStore(8)
    filled(store, list(range(48)))
    sequence = SequenceState(2, list(range(20)), LABEL, "v")
    sequence.prepare(20, store)
    sequence.computed = 20
    own = list(sequence.pages)
    sequence.tokens += range(20, 50)
    assert sequence.attach_prefix(49, store) == 28
    assert sequence.computed == 48 and len(sequence.pages) == 3
    assert sequence.pages[0] == own[0] and store.references(own[1]) == 0


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 8), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7), st.integers(0, 40)), max_size=60))
def test_any_history_is_accounted_for_exactly(total: int, history: list[tuple[int, int, int]]) -> None:
    store = StateStore(total)
    live: list[SequenceState] = []
    for kind, which, number in history:
        sequence = live[which % len(live)] if live else None
        if kind == 0 or sequence is None:
            sequence = SequenceState(len(live), [number % 3] * number, LABEL, "v")
            sequence.attach_prefix(number, store)
            live.append(sequence)
        elif kind == 1:
            live.append(sequence.fork(len(live), store))
        elif kind == 2:
            sequence.truncate(min(number, len(sequence.tokens)), store)
        elif kind == 3:
            sequence.tokens.append(number % 3)
            end = len(sequence.tokens)
            if sequence.pages_missing(end, store) <= store.available:
                before = sequence.computed
                sequence.prepare(end, store)
                sequence.computed = end
                sequence.register_full_pages(before, store)
        elif kind == 4:
            sequence.forget_state(number, store)
        else:
            store.clear_cache()
        store.check([s.pages for s in live])
        assert all(store.references(page) > 0 for s in live for page in s.pages)
        assert store.used + store.available == total
    for sequence in live:
        sequence.forget_state(0, store)
    assert store.used == 0
