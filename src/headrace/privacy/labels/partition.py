"""Page quotas from outside the engine: several engines on one executor, each with a range of its pages.

Within one StateStore any sequence may evict any domain's cached pages, and whoever comes back sees from its own hit
counter that somebody was there. Engines whose pages are disjoint cannot do that to each other.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace

from headrace.spec.adapter import Adapter
from headrace.spec.batch import Batch, PageCopy, Row
from headrace.spec.errors import InvalidRequest, PlanRejected
from headrace.spec.executor import Executor, Guarantees, Limits, StepResult
from headrace.spec.model import ModelSpec


class PageRanges:
    """Cuts an executor's pages into ranges and runs one batch at a time. The executor stays its owner's to close."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.lock = threading.Lock()
        self.adapter_users: Counter[str] = Counter()
        self.adapter_digests: dict[str, str] = {}
        self._taken = 0

    def take(self, pages: int) -> Partition:
        """The next `pages` pages of every state group. Raises PlanRejected when there are fewer left."""
        left = min(self.executor.limits.pages) - self._taken
        if pages > left:
            raise PlanRejected(f"A quota of {pages} pages is more than the {left} left; give it fewer pages.")
        first, self._taken = self._taken, self._taken + pages
        return Partition(self, first, pages)


class Partition:
    """An Executor that owns pages `first` … `first + pages - 1` of another."""

    def __init__(self, ranges: PageRanges, first: int, pages: int) -> None:
        self._ranges, self._first = ranges, first
        self._adapters: set[str] = set()
        inner = ranges.executor
        self.spec: ModelSpec = inner.spec
        self.guarantees: Guarantees = inner.guarantees
        self.limits: Limits = replace(inner.limits, pages=(pages,) * len(inner.limits.pages))

    def submit(self, batch: Batch) -> StepResult:
        """Runs the batch to its end and copies what it gave: the executor's arrays last until its next batch."""
        moved = replace(
            batch, rows=tuple(map(self._move_row, batch.rows)), copies=tuple(map(self._move_copy, batch.copies))
        )
        with self._ranges.lock:
            result = self._ranges.executor.submit(moved).result()
            hidden = {key: states.copy() for key, states in result.hidden.items()}
            return StepResult(result.logits.copy(), hidden)

    def _move_row(self, row: Row) -> Row:
        tables = tuple(tuple(page + self._first for page in table) for table in row.pages)
        return replace(row, pages=tables)

    def _move_copy(self, copy: PageCopy) -> PageCopy:
        return PageCopy(copy.group, copy.source + self._first, copy.target + self._first)

    def add_adapter(self, adapter: Adapter) -> None:
        """Loads it once, however many partitions add it; an adapter's name means the same in all of them.

        Raises InvalidRequest where the name means other weights: one label would be answered with another's.
        """
        digest = adapter.digest()
        with self._ranges.lock:
            if not self._ranges.adapter_users[adapter.name]:
                self._ranges.executor.add_adapter(adapter)
                self._ranges.adapter_digests[adapter.name] = digest
            elif self._ranges.adapter_digests[adapter.name] != digest:
                raise InvalidRequest(f"Adapter {adapter.name!r} has other weights at another label; rename this one.")
            self._ranges.adapter_users[adapter.name] += 1
            self._adapters.add(adapter.name)

    def remove_adapter(self, name: str) -> None:
        with self._ranges.lock:
            self._adapters.remove(name)
            self._ranges.adapter_users[name] -= 1
            if not self._ranges.adapter_users[name]:
                self._ranges.executor.remove_adapter(name)

    def close(self) -> None:
        """Gives up its adapters. The executor has other users."""
        for name in list(self._adapters):
            self.remove_adapter(name)
