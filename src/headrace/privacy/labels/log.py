"""A log whose lines carry labels, so that each reader sees a log of their own."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace.privacy.labels.flow import FlowLabel
from headrace.privacy.labels.policy import Policy


@dataclass(frozen=True, slots=True)
class Line:
    """What one principal did at one label. There is no time and no number: both would tell of lines left out."""

    event: str
    principal: str
    label: FlowLabel
    facts: Mapping[str, Any] = field(default_factory=dict)


class LabelledLog:
    """Lines in the order they came; a reader gets those that flow to them."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._lines: list[Line] = []
        self._lock = threading.Lock()

    def add(self, event: str, principal: str, label: FlowLabel, **facts: Any) -> None:
        with self._lock:
            self._lines.append(Line(event, principal, label, facts))

    def read(self, principal: str) -> list[Line]:
        """Raises FlowRefused for a principal without clearance."""
        with self._lock:
            lines = list(self._lines)
        return [line for line in lines if self._policy.may_read(principal, line.label)]
