"""How the verbs of a run are paid: what every bound allows, what was used, and the time that is left."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

from headrace.engine.answer import Extension
from headrace.reason.account import Account, Amount
from headrace.reason.cost import TokenCost
from headrace.reason.pages import PageBook, pages_of
from headrace.spec.budget import Budget
from headrace.spec.events import EventLog, StepEvent
from headrace.spec.model import PAGE_TOKENS

Bill = dict[str, Any]
"""What a verb cost and the bound that refused it: `prefill`, `flops`, `cut`; kept in the trace."""


class Purse:
    """An account that knows what tokens cost on this engine, and which pages the run holds."""

    def __init__(self, account: Account, cost: TokenCost, events: EventLog) -> None:
        self.account = account
        self.cost = cost
        self.pages = PageBook()
        self._events = events
        self._cached: dict[str, int] = {}

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

    async def prefill(self, node: str, start: int, count: int, keep: bool) -> Bill:
        """Pays for `count` given tokens behind `start`, all or none; `keep`: the sequence keeps them."""
        bill: Bill = {"prefill": 0, "flops": 0.0, "cut": None}
        if self.account.overdue():
            return bill | {"cut": "seconds"}
        flops = self.cost.flops(start, count)

        def fit() -> tuple[Amount, str | None]:
            end = start + count
            pages = self.pages.missing(node, end) if keep else pages_of(end) - start // PAGE_TOKENS
            wanted = Amount(prefill=count, flops=flops, pages=pages)
            short = (name for name in ("prefill", "flops", "pages") if getattr(wanted, name) > self.account.left(name))
            cut = next(short, None)
            return (wanted, None) if cut is None else (Amount(), cut)

        reserved, cut = await self.account.reserve(fit)
        self.account.settle(reserved, reserved)
        if cut is not None:
            self.account.stop(cut)
            return bill | {"cut": cut}
        return bill | {"prefill": count, "flops": flops}

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
    def watched(self, extension: Extension) -> Iterator[None]:
        """Ends the extend at the first engine step after which the time is over."""
        account = self.account
        if all(nested.budget.seconds is None for nested in account.chain):
            yield
            return

        def look(event: StepEvent) -> None:
            if account.overdue():
                extension.cancel()

        stop = self._events.listen(look)
        try:
            yield
        finally:
            stop()
