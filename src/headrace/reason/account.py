"""Nested budgets: reserve before, commit after, so that no sum ever passes a bound.

Reservations are granted in the order in which they were asked for: one that might not fit waits until
the earlier ones have been settled. What each is granted therefore depends on what the earlier ones used,
never on which of them ended first.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

from headrace.spec.budget import Budget, Spend

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Amount:
    """A part of a budget: what an extend, an append or a call needs."""

    tokens: int = 0
    prefill: int = 0
    flops: float = 0.0
    calls: int = 0
    pages: int = 0


_NAMES = tuple(item.name for item in fields(Amount))
_BOOKED = tuple(name for name in _NAMES if name != "pages")


@dataclass(slots=True, eq=False)
class Account:
    """What one budget has left. A nested one pays from its parent's as well.

    `stopped_by`: the bound that first refused or cut something. `met`: the first one in here or in a nested one.
    """

    budget: Budget
    clock: Clock
    parent: Account | None = None
    spend: Spend = field(default_factory=Spend)
    stopped_by: str | None = None
    met: str | None = None
    started: float = 0.0
    _reserved: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_NAMES, 0))
    pages_held: int = 0
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _settled: asyncio.Event = field(default_factory=asyncio.Event)
    _unsettled: int = 0

    def __post_init__(self) -> None:
        self.started = self.clock()

    def nested(self, budget: Budget) -> Account:
        return Account(budget, self.clock, self)

    @property
    def chain(self) -> list[Account]:
        return [self, *(self.parent.chain if self.parent else ())]

    @property
    def exhausted(self) -> bool:
        """Whether a bound, here or in a budget around, has refused or cut something."""
        return any(account.stopped_by for account in self.chain)

    @property
    def timed(self) -> bool:
        """Whether the time of this budget, or of one around it, is bounded."""
        return any(account.budget.seconds is not None for account in self.chain)

    def overdue(self) -> bool:
        """Whether the time of this budget, or of one around it, is over."""
        for account in self.chain:
            limit = account.budget.seconds
            if limit is not None and self.clock() - account.started >= limit:
                return True
        return False

    def stop(self, bound: str) -> None:
        """Notes that a bound has refused or shortened something."""
        self.stopped_by = self.stopped_by or bound
        root = self.chain[-1]
        root.met = root.met or bound

    def left(self, name: str) -> float:
        """What is neither spent nor reserved of a bound, here and in every budget around."""
        return min(account._left(name) for account in self.chain)

    def _left(self, name: str) -> float:
        limit = getattr(self.budget, name)
        if limit is None:
            return float("inf")
        used = self.pages_held if name == "pages" else getattr(self.spend, name)
        return float(limit) - used - self._reserved[name]

    def remaining(self) -> Budget:
        """What is left now of every bound, of the budgets around as well."""
        left: dict[str, Any] = {name: self.left(name) for name in _NAMES}
        times = [a.budget.seconds - (a.clock() - a.started) for a in self.chain if a.budget.seconds is not None]
        left["seconds"] = max(min(times, default=math.inf), 0.0)
        whole = ("tokens", "prefill", "pages", "calls")
        found = {name: None if math.isinf(value) else max(value, 0) for name, value in left.items()}
        return Budget(**{name: int(v) if v is not None and name in whole else v for name, v in found.items()})

    def hold(self, pages: int) -> None:
        """Notes pages taken, or with a negative number given back."""
        for account in self.chain:
            account.pages_held += pages
            account.spend.pages = max(account.spend.pages, account.pages_held)

    @contextmanager
    def holding(self, pages: int) -> Iterator[None]:
        """Pages of a reservation are held inside, and neither held nor reserved behind it."""
        for account in self.chain:
            account._reserve(Amount(pages=pages), -1)
        self.hold(pages)
        try:
            yield
        finally:
            self.hold(-pages)

    @contextmanager
    def passing(self, seen: dict[str, int]) -> Iterator[None]:
        """Pages that are taken and given back inside: how many at most goes to `seen["pages"]`."""
        earlier = [account.spend.pages for account in self.chain]
        held = self.pages_held
        for account in self.chain:
            account.spend.pages = account.pages_held
        try:
            yield
        finally:
            seen["pages"] = self.spend.pages - held
            for account, peak in zip(self.chain, earlier, strict=True):
                account.spend.pages = max(peak, account.pages_held)
            self.hold(seen["pages"])
            self.hold(-seen["pages"])

    async def reserve(self, fit: Callable[[], tuple[Amount, str | None]]) -> tuple[Amount, str | None]:
        """`fit` says what can be had now, and which bound cut it; a cut one waits for all earlier ones."""
        root = self.chain[-1]
        async with root._turn:
            amount, cut = fit()
            while cut is not None and root._unsettled:
                root._settled.clear()
                await root._settled.wait()
                amount, cut = fit()
            for account in self.chain:
                account._reserve(amount, 1)
            root._unsettled += 1
            return amount, cut

    def settle(self, reserved: Amount, used: Amount) -> None:
        """Gives a reservation back and books what was used of it."""
        for account in self.chain:
            account._reserve(reserved, -1)
        self.book(used)
        root = self.chain[-1]
        root._unsettled -= 1
        root._settled.set()

    def book(self, used: Amount) -> None:
        """Books what was used, here and in every budget around."""
        for name in _BOOKED:
            self.count(name, getattr(used, name))

    def count(self, name: str, more: float) -> None:
        for account in self.chain:
            setattr(account.spend, name, getattr(account.spend, name) + more)

    def _reserve(self, amount: Amount, sign: int) -> None:
        for name in _NAMES:
            self._reserved[name] += sign * getattr(amount, name)
