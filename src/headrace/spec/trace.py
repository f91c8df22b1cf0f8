"""The append-only log of a run. Everything else about it (tree, stream, pairs, replay) is a view of this."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from headrace.spec.errors import InvalidRequest

FORMAT = 1


class Event(NamedTuple):
    """`node` names a sequence by its place in the tree, `step` counts that node's verbs."""

    n: int
    kind: str
    node: str
    step: int
    data: dict[str, Any]


class Trace:
    """Events in the order they happened, in memory and, with a path, as one JSON line each on disk."""

    def __init__(self, path: Path | None = None) -> None:
        self.events: list[Event] = []
        self._listeners: list[Callable[[Event], None]] = []
        self._file: TextIO | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Trace:
        """Reads a trace; a last line that was cut off is left out. Raises InvalidRequest."""
        trace = cls()
        lines = path.read_bytes().split(b"\n")  # a kill may have torn a character, not only a line
        for number, line in enumerate(lines):
            if not line:
                continue
            try:
                event = Event(*json.loads(line))
                if not isinstance(event.kind, str) or not isinstance(event.data, dict):
                    raise ValueError
                trace.events.append(event)
            except (ValueError, TypeError):
                if number == len(lines) - 1:
                    break
                raise InvalidRequest(f"{path} has no event in line {number + 1}; give a trace.", "trace") from None
        if not trace.events or trace.events[0].kind != "run" or trace.events[0].data.get("format") != FORMAT:
            raise InvalidRequest(f"{path} is no trace of this version; give one that solve --trace wrote.", "trace")
        return trace

    def add(self, kind: str, node: str = "", step: int = 0, **data: Any) -> Event:
        event = Event(len(self.events), kind, node, step, data)
        self.events.append(event)
        if self._file is not None:
            self._file.write(json.dumps(list(event), ensure_ascii=False) + "\n")
            self._file.flush()
        for listener in self._listeners:
            listener(event)
        return event

    def listen(self, listener: Callable[[Event], None]) -> None:
        self._listeners.append(listener)

    @property
    def header(self) -> dict[str, Any]:
        return self.events[0].data

    def of(self, *kinds: str) -> Iterator[Event]:
        return (event for event in self.events if event.kind in kinds)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
