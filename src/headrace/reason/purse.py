"""How the verbs of a run are paid: what every bound allows, what was used, and the time that is left."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, TypeVar

from headrace.engine.answer import Answer
from headrace.reason.account import Account, Amount
from headrace.reason.cost import TokenCost
from headrace.reason.pages import PageBook, pages_of
from headrace.spec.budget import Budget
from headrace.spec.errors import Cancelled
from headrace.spec.events import EventLog, StepEvent
from headrace.spec.model import PAGE_TOKENS

T = TypeVar("T")

Bill = dict[str, Any]
"""What a verb cost and the bound that refused or ended it: `prefill`, `flops`, `pages`, `cut`; kept in the trace."""


class Purse:
    """An account that knows what tokens cost on this engine, and which pages the run holds."""

    def __init__(self, account: Account, cost: TokenCost, events: EventLog) -> None:
        self.account = account
        self.cost = cost
        self.pages = PageBook()
        self._events = events
        self._cached: dict[str, int] = {}
        self._running: dict[Answer[Any], Account] = {}
        self._gate = threading.Lock()

    @contextlib.contextmanager
    def within(self, budget: Budget) -> Iterator[None]:
        """Everything inside is paid from a nested budget."""
        outer = self.account
        self.account = outer.nested(budget)
        try:
            yield
        finally:
            self.account = outer

    def affordable(self, node: str, start: int, ask: int) -> tuple[Amount, str | None]:
        """The most tokens up to `ask` behind `start` that every bound allows now, and the bound that cut them."""
        left = self.account.left
        grants = {
            "tokens": min(ask, left("tokens")),
            "flops": self.cost.affordable(start, ask, left("flops")),
            "pages": ask if math.isinf(left("pages")) else min(ask, self._room(node, start, int(left("pages")))),
        }
        cut = min(grants, key=lambda name: grants[name])
        count = int(grants[cut])
        pages = self.pages.missing(node, start + count)
        amount = Amount(tokens=count, flops=self.cost.flops(start, count), pages=pages)
        return amount, cut if count < ask else None

    def _room(self, node: str, start: int, pages: int) -> int:
        return max(self.pages.room(node, pages) - start, 0)

    async def prefill(self, node: str, start: int, count: int) -> Bill:
        """Pays for `count` given tokens that `node` keeps behind `start`, all or none."""
        async with self._paying(start, (count,), lambda: self.pages.missing(node, start + count)) as bill:
            return bill

    def look(self, start: int, counts: Sequence[int]) -> AbstractAsyncContextManager[Bill]:
        """Pays for pieces that are each looked at behind `start`, all or none; inside, their pages are held.

        What the bill says at the end is paid: `timed` changes it where the time is over.
        """
        pages = sum(pages_of(start + count - 1) - (start - 1) // PAGE_TOKENS for count in counts if count)
        return self._paying(start, counts, lambda: pages)

    @contextlib.asynccontextmanager
    async def _paying(self, start: int, counts: Sequence[int], pages: Callable[[], int]) -> AsyncIterator[Bill]:
        account = self.account
        bill: Bill = {"prefill": 0, "flops": 0.0, "pages": 0, "cut": None}
        if account.overdue():
            account.stop("seconds")
            yield bill | {"cut": "seconds"}
            return
        flops = sum(self.cost.flops(start, count) for count in counts)

        def fit() -> tuple[Amount, str | None]:
            wanted = Amount(prefill=sum(counts), flops=flops, pages=pages())
            short = (name for name in ("prefill", "flops", "pages") if getattr(wanted, name) > account.left(name))
            cut = next(short, None)
            return (wanted, None) if cut is None else (Amount(), cut)

        reserved, cut = await account.reserve(fit)
        bill |= {"prefill": reserved.prefill, "flops": reserved.flops, "pages": reserved.pages, "cut": cut}
        try:
            with account.holding(reserved.pages):
                yield bill
        finally:
            rest = replace(reserved, pages=0)
            account.settle(rest, replace(rest, prefill=bill["prefill"], flops=bill["flops"]))
            if bill["cut"] is not None:
                account.stop(bill["cut"])

    async def looked(self, data: Mapping[str, Any]) -> None:
        """Holds the pages of a recorded look for a moment, beside those of the looks that were made with it."""
        account = self.account
        account.hold(data["pages"])
        await asyncio.sleep(0)
        account.hold(-data["pages"])

    def book(self, data: Mapping[str, Any]) -> None:
        """Books what a verb of an earlier run had cost."""
        drawn = data.get("drawn", 0)
        self.account.book(Amount(drawn, data.get("prefill", 0), data["flops"], data.get("calls", 0)))
        if data["cut"]:
            self.account.stop(data["cut"])

    def note_cached(self, root: str, tokens: int) -> None:
        """Tokens of a root's prompt that the engine's cache held: the least that any first extend of it found."""
        self._cached[root] = min(tokens, self._cached.get(root, tokens))

    @property
    def cached(self) -> int:
        return sum(self._cached.values())

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Inside, what is `timed` ends at the first engine step after which its time is over."""
        stop = self._events.listen(self._end_overdue)
        try:
            yield
        finally:
            stop()

    async def timed(self, start: Callable[[], Answer[T]], bill: Bill | None = None) -> T | None:
        """What `start` sets going; None where the time is over before, or before a score or a read is done.

        An extend ends with what it has. The `bill` of a look is told: what never began is not paid.
        """
        account, bill = self.account, {} if bill is None else bill
        with self._gate:  # no step ends between the look at the clock and the start
            if account.overdue():
                bill |= {"prefill": 0, "flops": 0.0, "cut": "seconds"}
                return None
            answer = start()
            if account.timed:
                self._running[answer] = account
        try:
            return await answer
        except Cancelled:
            bill["cut"] = "seconds"
            return None
        finally:
            with self._gate:
                self._running.pop(answer, None)

    def _end_overdue(self, event: StepEvent) -> None:
        with self._gate:
            for answer, account in self._running.items():
                if account.overdue():
                    answer.cancel()
