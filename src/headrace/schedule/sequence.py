"""A sequence as the scheduler sees it, and the work asked of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from headrace.schedule.store import StateStore, page_key, pages_for, root_key
from headrace.spec.batch import PageCopy, Phase
from headrace.spec.labels import Label
from headrace.spec.model import PAGE_TOKENS


@dataclass(slots=True, eq=False)
class SequenceState:
    """Owned tokens, and the pages that hold the state of the first `computed` of them.

    Pages can be taken away from an idle or preempted sequence at any time; then `computed` is 0 and
    the next work recomputes them. `variant` names the model variant that computes them, `adapter` and
    its strength included.
    """

    id: int
    tokens: list[int]
    label: Label
    variant: str
    pinned: bool = False
    computed: int = 0
    pages: list[int] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    tree: int | None = None
    """Id of the sequence it was forked from first of all, itself where it was not forked."""
    adapter: str | None = None
    adapter_scale: float = 1.0

    def __post_init__(self) -> None:
        self.tree = self.id if self.tree is None else self.tree

    def chain(self, count: int) -> list[bytes]:
        """Keys of the first `count` full pages; keys of tokens that never change are kept."""
        while len(self.keys) < count:
            parent = self.keys[-1] if self.keys else root_key(self.label.domain, self.variant)
            start = len(self.keys) * PAGE_TOKENS
            self.keys.append(page_key(parent, self.tokens[start : start + PAGE_TOKENS]))
        return self.keys[:count]

    def fork(self, new_id: int, store: StateStore) -> SequenceState:
        """A sequence with the same tokens that shares every page, the last partly filled one too."""
        store.share(self.pages)
        tokens, pages, keys = list(self.tokens), list(self.pages), list(self.keys)
        return replace(self, id=new_id, tokens=tokens, pinned=False, pages=pages, keys=keys)

    def truncate(self, length: int, store: StateStore) -> None:
        """Forgets the tokens from `length` on and the pages beyond."""
        del self.tokens[length:]
        del self.keys[length // PAGE_TOKENS :]
        self.forget_state(length, store)

    def forget_state(self, position: int, store: StateStore) -> None:
        """Keeps the state of the first `position` tokens at most, so that the rest is computed again."""
        self.computed = min(self.computed, position)
        keep = pages_for(self.computed)
        store.release(self.pages[keep:])
        del self.pages[keep:]

    def attach_prefix(self, limit: int, store: StateStore) -> int:
        """Takes over the cached pages that continue its own full ones, up to `limit` tokens; returns tokens gained."""
        first, found = self.computed // PAGE_TOKENS, []
        for key in self.chain(limit // PAGE_TOKENS)[first:]:
            page = store.find(key)
            if page is None:
                break
            found.append(page)
        if not found:
            return 0
        store.share(found)
        store.release(self.pages[first:])
        self.pages[first:] = found
        before, self.computed = self.computed, len(self.pages) * PAGE_TOKENS
        return self.computed - before

    def register_full_pages(self, before: int, store: StateStore) -> list[bytes]:
        """Makes the pages filled since `before` computed tokens findable; returns their keys."""
        first, last = before // PAGE_TOKENS, self.computed // PAGE_TOKENS
        if first == last:
            return []
        keys = self.chain(last)[first:]
        for page, key in zip(self.pages[first:last], keys, strict=True):
            store.register(page, key)
        return keys

    def pages_missing(self, end: int, store: StateStore) -> int:
        """Pages to allocate before positions computed … end - 1 can be written."""
        missing = pages_for(end) - len(self.pages)
        return missing + self._must_copy(store)

    def prepare(self, end: int, store: StateStore) -> list[PageCopy]:
        """Allocates pages up to `end` and a private copy of a last page that must stay; the caller made room."""
        copies = []
        if self._must_copy(store):
            index = self.computed // PAGE_TOKENS
            source = self.pages[index]
            target = _take(store)
            copies.append(PageCopy(0, source, target))
            store.release([source])
            self.pages[index] = target
        while len(self.pages) < pages_for(end):
            self.pages.append(_take(store))
        return copies

    def _must_copy(self, store: StateStore) -> bool:
        index = self.computed // PAGE_TOKENS
        return index < len(self.pages) and not store.writable(self.pages[index])

    def give_up_cached_page(self, store: StateStore) -> bool:
        """Takes the page it writes next out of the cache, where it alone holds it: then it needs no copy."""
        index = self.computed // PAGE_TOKENS
        if not self._must_copy(store) or store.references(self.pages[index]) > 1:
            return False
        store.forget(self.pages[index])
        return True


def _take(store: StateStore) -> int:
    page = store.allocate()
    assert page is not None, "pages were promised but are gone"
    return page


@dataclass(slots=True, eq=False)
class Work:
    """One extend, score or read of a sequence.

    `wanted_from`: first position whose output (logits, or hidden states with `reads`) has not been
    delivered. `most`: tokens the sequence may grow to. `owner` is the driver's, never read here.
    `awaited`: key of the deepest page of an equal prefix that another work is computing.
    `lead`: order of the oldest unfinished work of its tree. `value`: what it is worth within its tree.
    """

    sequence: SequenceState
    phase: Phase
    wanted_from: int
    most: int
    order: int
    lead: int
    reads: tuple[int, ...] = ()
    owner: Any = None
    produced: int = 0
    cached_tokens: int | None = None
    awaited: bytes | None = None
    value: float = 0.0

    @property
    def rank(self) -> tuple[bool, int, float, int]:
        """Who gets pages first: pinned sequences, then older trees, in a tree what is worth more, then older work."""
        return not self.sequence.pinned, self.lead, -self.value, self.order

    @property
    def remaining(self) -> int:
        """Tokens to compute before the output of the last one is there."""
        return len(self.sequence.tokens) - self.sequence.computed

    @property
    def decoding(self) -> bool:
        return self.produced > 0 and self.remaining == 1
