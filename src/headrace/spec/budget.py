"""What a search may spend, and what it has spent. (Bytes are the ledger's; this is *spend*.)"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from headrace.spec.errors import InvalidRequest

_UNITS = {
    "tokens": ("tok", "token", "tokens"),
    "prefill": ("prefill",),
    "seconds": ("s", "sec", "seconds"),
    "flops": ("flop", "flops"),
    "pages": ("page", "pages"),
    "calls": ("call", "calls"),
}
_FACTORS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_AMOUNT = re.compile(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kMGTP]?)\s*([a-z]+)\s*")


@dataclass(frozen=True, slots=True)
class Budget:
    """Upper bounds; None is no bound.

    `tokens`: drawn. `prefill`: given or forced (prompts once, appended and scored tokens), whether or not a
    cache held them, so that a warm cache never changes an answer. `seconds` of wall time. `flops` of the
    model's operations for both. `pages` of state held at once. `calls` of tools and scorers.
    """

    tokens: int | None = None
    prefill: int | None = None
    seconds: float | None = None
    flops: float | None = None
    pages: int | None = None
    calls: int | None = None

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None and not (value >= 0 and math.isfinite(value)):
                raise InvalidRequest(f"A budget of {value} {item.name} is none; give 0 or more.", "budget")

    @classmethod
    def parse(cls, text: str) -> Budget:
        """`400 tok`, `4k tok, 10 s`, `2 T flops, 64 pages, 20 calls, 8k prefill`. Raises InvalidRequest."""
        found: dict[str, Any] = {}
        for part in text.split(","):
            match = _AMOUNT.fullmatch(part)
            name = next((n for n, words in _UNITS.items() if match and match[3] in words), None)
            if match is None or name is None or name in found:
                raise InvalidRequest(
                    f"The budget {text!r} cannot be read at {part.strip()!r}; write it like '400 tok, 10 s', "
                    f"with tok, prefill, s, flops, pages or calls, each once.",
                    "budget",
                )
            amount = _number(match[1], text) * _FACTORS[match[2]]
            found[name] = amount if name in ("seconds", "flops") else int(amount)
        return cls(**found)

    def split(self, shares: Sequence[float]) -> list[Budget]:
        """One budget a share, whose sums stay within this one. Pages, held at once, are split as well."""
        total = sum(shares)
        if not shares or min(shares) < 0 or total <= 0:
            raise InvalidRequest(f"Shares {list(shares)} cannot split a budget; give positive numbers.", "budget")
        return [
            Budget(**{f.name: _share(getattr(self, f.name), share / total) for f in fields(self)}) for share in shares
        ]

    def __str__(self) -> str:
        given = [(f.name, getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) is not None]
        return ", ".join(f"{value:g} {_UNITS[name][0]}" for name, value in given) or "no bound"


@dataclass(slots=True)
class Spend:
    """What a run has used. `pages` is the peak held at once; `cached` are prefill tokens that a cache held.

    `refused`: attempts that the engine refused while others of the run went on.
    """

    tokens: int = 0
    prefill: int = 0
    cached: int = 0
    seconds: float = 0.0
    flops: float = 0.0
    pages: int = 0
    calls: int = 0
    forks: int = 0
    scorer_tokens: int = field(default=0)
    scorer_prefill: int = field(default=0)
    refused: int = 0

    def as_usage(self) -> dict[str, int | float]:
        """The names of the public `usage`."""
        return {
            "prompt": self.prefill,
            "cached": self.cached,
            "completion": self.tokens,
            "scorer": {"prompt": self.scorer_prefill, "completion": self.scorer_tokens},  # type: ignore[dict-item]
            "forks": self.forks,
            "calls": self.calls,
            "kv_peak_pages": self.pages,
            "seconds": round(self.seconds, 6),
            "flops": self.flops,
            **({"refused": self.refused} if self.refused else {}),
        }


def _number(text: str, budget: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidRequest(
            f"{text!r} in the budget {budget!r} is no number; write it like '400 tok'.", "budget"
        ) from None


def _share(value: Any, share: float) -> Any:
    if value is None:
        return None
    return math.floor(value * share) if isinstance(value, int) else value * share
