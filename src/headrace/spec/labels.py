"""Who owns a request and who may share what it leaves behind."""

from __future__ import annotations

from dataclasses import dataclass

LOCAL = "local"
"""The principal of everything run by the person at the machine."""


@dataclass(frozen=True, slots=True)
class Label:
    """Carried by every request, page and passage. `domain` names who may share its cached pages."""

    principal: str = LOCAL
    sharing: str | None = None

    @property
    def domain(self) -> str:
        return f"principal:{self.principal}" if self.sharing is None else f"shared:{self.sharing}"
