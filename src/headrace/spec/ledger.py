"""Bytes reserved before they are used. (Tokens and seconds are *spend*, never ledger.)"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from headrace.spec.errors import PlanRejected

Tag: TypeAlias = Literal["weights", "state", "workspace", "runtime"]


@dataclass(frozen=True, slots=True)
class Reservation:
    tag: Tag
    what: str
    bytes: int


class Ledger:
    """All anonymous memory of one engine, by tag, under one limit.

    Memory-mapped files are recorded apart (`mapped`): the operating system can drop them.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.items: list[Reservation] = []
        self.mapped: list[Reservation] = []

    @property
    def total(self) -> int:
        return sum(item.bytes for item in self.items)

    def reserve(self, tag: Tag, what: str, nbytes: int, nearest: Callable[[int], str] | None = None) -> Reservation:
        """Takes `nbytes`, or raises PlanRejected naming the largest items and `nearest(bytes too many)`."""
        return self.reserve_all([(tag, what, nbytes)], nearest)[0]

    def reserve_all(
        self, plan: Sequence[tuple[Tag, str, int]], nearest: Callable[[int], str] | None = None
    ) -> list[Reservation]:
        """Takes every (tag, what, bytes) or none; a refusal names the need of the whole plan."""
        items = [Reservation(*entry) for entry in plan]
        if self.limit is not None and self.total + sum(item.bytes for item in items) > self.limit:
            raise PlanRejected(self._refusal(items, nearest))
        self.items += items
        return items

    def charge(self, tag: Tag, what: str, nbytes: int) -> Reservation:
        """Records what is taken in any case, beyond the limit as well: the next plan answers for it."""
        item = Reservation(tag, what, nbytes)
        self.items.append(item)
        return item

    def map_file(self, what: str, nbytes: int) -> Reservation:
        item = Reservation("weights", what, nbytes)
        self.mapped.append(item)
        return item

    def release(self, item: Reservation) -> None:
        (self.items if item in self.items else self.mapped).remove(item)

    def by_tag(self) -> dict[str, int]:
        sums: dict[str, int] = {}
        for item in self.items:
            sums[item.tag] = sums.get(item.tag, 0) + item.bytes
        return sums

    def _refusal(self, items: Sequence[Reservation], nearest: Callable[[int], str] | None) -> str:
        assert self.limit is not None
        need = self.total + sum(item.bytes for item in items)
        largest = sorted([*self.items, *items], key=lambda i: -i.bytes)[:3]
        names = ", ".join(f"{i.what} {mib(i.bytes)}" for i in largest)
        hint = nearest(need - self.limit) if nearest else "raise --memory or choose a smaller model"
        return f"The plan needs {mib(need, up=True)} but {mib(self.limit)} are allowed ({names}); {hint}."


def mib(nbytes: int, up: bool = False) -> str:
    return f"{-(-nbytes // 2**20) if up else round(nbytes / 2**20):,d} MiB"
