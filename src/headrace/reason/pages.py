"""Pages that a run holds, by the lengths and forks of its sequences."""

from __future__ import annotations

from collections import Counter

from headrace.reason.account import Account
from headrace.spec.model import PAGE_TOKENS


class PageBook:
    """Tables of page numbers of the run's own, whatever the engine shares beyond.

    Pages are shared by forks; the one with the last token, whose state comes with the next verb, is copied then.
    A page is paid for by the account under which it was taken, until nobody holds it.
    """

    def __init__(self) -> None:
        self._tables: dict[str, list[int]] = {}
        self._lengths: dict[str, int] = {}
        self._held: Counter[int] = Counter()
        self._payer: dict[int, Account] = {}
        self._next = 0

    def missing(self, node: str, length: int) -> int:
        """Pages to take before `node` (known or not) may have `length` tokens."""
        table, now = self._tables.get(node, []), self._lengths.get(node, 0)
        if length <= now:
            return 0
        return pages_of(length) - len(table) + self._copies(node)

    def room(self, node: str, pages: int) -> int:
        """The length that `node` could grow to with `pages` more."""
        now = self._lengths[node]
        if pages < self._copies(node):
            return now
        return (len(self._tables[node]) + pages - self._copies(node)) * PAGE_TOKENS

    def grow(self, node: str, length: int, account: Account) -> None:
        table = self._tables.setdefault(node, [])
        if length > self._lengths.get(node, 0) and self._copies(node):
            self._release([table.pop()])
        while len(table) < pages_of(length):
            table.append(self._take(account))
        self._lengths[node] = max(length, self._lengths.get(node, 0))

    def fork(self, node: str, kid: str) -> None:
        self._tables[kid], self._lengths[kid] = list(self._tables.get(node, ())), self._lengths.get(node, 0)
        self._held.update(self._tables[kid])

    def cut(self, node: str, length: int) -> None:
        table = self._tables[node]
        self._release(table[pages_of(length) :])
        del table[pages_of(length) :]
        self._lengths[node] = length

    def drop(self, node: str) -> None:
        self._release(self._tables.pop(node, []))
        self._lengths.pop(node, None)

    def _copies(self, node: str) -> int:
        """1 where another sequence as well holds the page of the last token."""
        table = self._tables.get(node)
        return int(self._held[table[-1]] > 1) if table else 0

    def _take(self, account: Account) -> int:
        self._next += 1
        self._held[self._next] = 1
        self._payer[self._next] = account
        account.hold(1)
        return self._next

    def _release(self, pages: list[int]) -> None:
        for page in pages:
            self._held[page] -= 1
            if self._held[page] == 0:
                del self._held[page]
                self._payer.pop(page).hold(-1)


def pages_of(tokens: int) -> int:
    return -(-tokens // PAGE_TOKENS)
