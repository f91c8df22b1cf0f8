"""Pages of sequence state: reference counts, copy-on-write, hash-chained prefix reuse, eviction.

All state groups of a model keep every page in this version, so one page number stands for one page
in each group's arena.
"""

from __future__ import annotations

import hashlib
import struct
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from headrace.spec.model import PAGE_TOKENS


def pages_for(tokens: int) -> int:
    """Pages that hold `tokens` tokens."""
    return -(-tokens // PAGE_TOKENS)


def root_key(domain: str, variant: str) -> bytes:
    """Start of a chain of page keys: who may share it, and the model variant that computed it.

    Fields are length-prefixed, so no two different pairs give the same bytes.
    """
    parts = [text.encode() for text in (domain, variant)]
    return hashlib.sha256(b"".join(struct.pack("<Q", len(p)) + p for p in parts)).digest()


def page_key(parent: bytes, tokens: Sequence[int]) -> bytes:
    """Key of a full page: SHA-256 over its parent's key and its tokens."""
    return hashlib.sha256(parent + struct.pack(f"<{len(tokens)}q", *tokens)).digest()


class StateStore:
    """A fixed number of pages. A page is free, held by `references`, or cached and evictable."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._references = [0] * total
        self._key: list[bytes | None] = [None] * total
        self._free = list(range(total - 1, -1, -1))
        self._by_key: dict[bytes, int] = {}
        self._evictable: OrderedDict[int, None] = OrderedDict()

    @property
    def available(self) -> int:
        """Pages that `allocate` can give right now."""
        return len(self._free) + len(self._evictable)

    @property
    def cached(self) -> int:
        """Pages that nobody holds but whose content a prefix may still hit."""
        return len(self._evictable)

    @property
    def used(self) -> int:
        """Pages that some sequence holds."""
        return self.total - self.available

    def references(self, page: int) -> int:
        return self._references[page]

    def allocate(self) -> int | None:
        """A page with one reference and unspecified content; evicts the least recently used cached page."""
        if self._free:
            page = self._free.pop()
        elif self._evictable:
            page, _ = self._evictable.popitem(last=False)
            self.forget(page)
        else:
            return None
        self._references[page] = 1
        return page

    def share(self, pages: Iterable[int]) -> None:
        """Adds a reference to each page."""
        for page in pages:
            if self._references[page] == 0:
                self._evictable.pop(page)
            self._references[page] += 1

    def release(self, pages: Sequence[int]) -> None:
        """Drops a reference to each page; the deepest page becomes the first to be evicted."""
        for page in reversed(pages):
            if self._references[page] <= 0:
                raise AssertionError(f"page {page} released more often than shared")
            self._references[page] -= 1
            if self._references[page] == 0:
                if self._key[page] is None:
                    self._free.append(page)
                else:
                    self._evictable[page] = None

    def writable(self, page: int) -> bool:
        """Whether its one holder may write it in place: not shared, and not promised to the cache."""
        return self._references[page] == 1 and self._key[page] is None

    def register(self, page: int, key: bytes) -> None:
        """Makes a full page findable; the first page of equal content stays the findable one."""
        if self._key[page] is None and key not in self._by_key:
            self._key[page] = key
            self._by_key[key] = page

    def find(self, key: bytes) -> int | None:
        return self._by_key.get(key)

    def clear_cache(self) -> None:
        """Forgets every cached page; pages that sequences hold stay theirs but can no longer be hit."""
        for page in [p for p, key in enumerate(self._key) if key is not None]:
            self.forget(page)
            if page in self._evictable:
                del self._evictable[page]
                self._free.append(page)

    def forget(self, page: int) -> None:
        """Makes a page unfindable, because its content is about to change."""
        key = self._key[page]
        if key is not None:
            del self._by_key[key]
            self._key[page] = None

    def check(self, held: Iterable[Sequence[int]]) -> None:
        """Raises AssertionError unless the counts are exactly those of `held`, the tables of all sequences."""
        counts = [0] * self.total
        for pages in held:
            for page in pages:
                counts[page] += 1
        assert counts == self._references, "reference counts differ from the tables held"
        idle = {p for p in range(self.total) if counts[p] == 0}
        assert idle == set(self._free) | set(self._evictable), "a page is neither held, free nor cached"
        assert len(self._free) + len(self._evictable) == len(idle), "a page is free twice"
        assert all(self._key[p] is None for p in self._free), "a free page is still findable"
        assert {k: p for p, k in enumerate(self._key) if k is not None} == self._by_key, "index and pages differ"
