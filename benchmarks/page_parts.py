"""What the pages that are made of result files have alike: shares, tables, and what stands where nothing is known."""

from __future__ import annotations

from collections.abc import Sequence

OPEN = "not measured yet"


def percent(value: float) -> str:
    return f"{value:.2%}" if value > 0.99 or value < 0.01 else f"{value:.1%}"


def spanned(value: float, low: float, high: float) -> str:
    """A share and its interval."""
    return f"{percent(value)} [{percent(low)}, {percent(high)}]"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
