"""What happened in each step: one log that the metrics, the page and the planner read."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

log = logging.getLogger("headrace.events")


class StepEvent(NamedTuple):
    """Counters of one engine step. Seconds are wall time inside the engine thread.

    `text_seconds` are those of `sample_seconds` in which tokens became text.
    """

    step: int
    decode_rows: int
    decode_tokens: int
    prefill_tokens: int
    logit_rows: int
    sampled_tokens: int
    running: int
    waiting: int
    pages_used: int
    pages_cached: int
    pages_total: int
    admitted: int
    finished: int
    preempted: int
    cached_tokens: int
    schedule_seconds: float
    run_seconds: float
    sample_seconds: float
    text_seconds: float = 0.0
    at: float = 0.0
    sequences: tuple[tuple[int, str, int], ...] = ()
    """(sequence, phase, tokens) of every row."""


class EventLog:
    """The last `keep` events, and listeners that are called for each new one in the engine thread."""

    def __init__(self, keep: int = 4096) -> None:
        self._events: deque[StepEvent] = deque(maxlen=keep)
        self._listeners: list[Callable[[StepEvent], None]] = []
        self._lock = threading.Lock()

    def add(self, event: StepEvent) -> None:
        with self._lock:
            self._events.append(event)
            listeners = tuple(self._listeners)
        for listener in listeners:
            try:
                listener(event)
            except Exception:
                log.exception("A listener of engine events failed and is not called any more.")
                self._listeners.remove(listener)

    def listen(self, listener: Callable[[StepEvent], None]) -> Callable[[], None]:
        """Calls `listener` for every later event; returns the function that ends it."""
        with self._lock:
            self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def recent(self, count: int | None = None) -> list[StepEvent]:
        with self._lock:
            events = list(self._events)
        return events if count is None else events[-count:]
