"""What a run does, written down; and what an earlier run did, taken from its trace instead of done again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from headrace.spec.errors import InvalidRequest
from headrace.spec.trace import Event, Trace

VERBS = frozenset("open extend append fork rewind logprobs read scores candidate overdue refused tool".split())
"""Events that a resumed run takes from its trace; all others are views of these."""


class TraceMismatch(InvalidRequest):
    """A trace does not belong to this run."""


class Journal:
    """Every verb has a name: its node, and its number among that node's verbs."""

    def __init__(self, trace: Trace, earlier: Trace | None = None, caught_up: Callable[[], None] | None = None) -> None:
        self.trace = trace
        self._earlier: dict[tuple[str, int], Event] = {}
        if earlier is not None:
            self._earlier = {(event.node, event.step): event for event in earlier.events if event.kind in VERBS}
        self._caught_up = caught_up
        self._tell_caught_up()

    def recorded(self, kind: str, node: str, step: int, asked: list[Any]) -> dict[str, Any] | None:
        """What this verb gave in the earlier run, if it got that far. Raises TraceMismatch."""
        event = self._earlier.pop((node, step), None)
        if event is None:
            return None
        if event.kind != kind or event.data["asked"] != json.loads(json.dumps(asked)):
            raise TraceMismatch(
                f"The trace has {event.kind} where this run does {kind} at {node}; "
                f"resume with the model, strategy, seed and budget that it began with.",
                "trace",
            )
        self.trace.add(kind, node, step, **event.data)
        self._tell_caught_up()
        return event.data

    def record(self, kind: str, node: str, step: int, asked: list[Any], data: dict[str, Any]) -> None:
        self.trace.add(kind, node, step, asked=asked, **data)

    def note(self, kind: str, **data: Any) -> None:
        """An event that only views read."""
        self.trace.add(kind, "", 0, **data)

    def digest(self) -> str:
        """Names what was done and what came of it, whatever the order in which it ended."""
        verbs = sorted((event.node, event.step, event.kind, event.data) for event in self.trace.of("run", *VERBS))
        return hashlib.sha256(json.dumps(verbs).encode()).hexdigest()[:16]

    def _tell_caught_up(self) -> None:
        if not self._earlier and self._caught_up is not None:
            self._caught_up()
            self._caught_up = None
