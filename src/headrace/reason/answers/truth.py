"""True or false."""

from __future__ import annotations

import re
from dataclasses import dataclass

_MARKED = re.compile(r"answer(?: is)?\s*[:=]?\W*(true|false)\b", re.IGNORECASE)
_WORD = re.compile(r"\b(true|false)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Truth:
    """`true` or `false`: behind the last "answer:", else the last of these words."""

    name: str = "truth"

    def extract(self, text: str) -> str | None:
        found = _MARKED.findall(text) or _WORD.findall(text)
        return found[-1].casefold() if found else None

    def equal(self, a: str, b: str) -> bool:
        return a == b
