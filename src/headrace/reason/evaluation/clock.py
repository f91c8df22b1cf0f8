"""Wall time that is shared by what runs at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from headrace.reason.account import Clock


class SharedClock:
    """Wall time divided among the runs that are in flight: it advances by 1/n a second while there are n."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._running, self._value, self._last = clock, 0, 0.0, clock()

    @contextmanager
    def timed(self) -> Iterator[list[float]]:
        """A list to which the share is added at the end."""
        share: list[float] = []
        entered = self.enter()
        try:
            yield share
        finally:
            share.append(self.leave(entered))

    def enter(self) -> float:
        self._advance()
        self._running += 1
        return self._value

    def leave(self, entered: float) -> float:
        self._advance()
        self._running -= 1
        return self._value - entered

    def _advance(self) -> None:
        now = self._clock()
        if self._running:
            self._value += (now - self._last) / self._running
        self._last = now
