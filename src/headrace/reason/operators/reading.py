"""Strict readers of operators' answers: a text either keeps to its form or is Unreadable, which is no value at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

T = TypeVar("T")

_RATING = re.compile(r"(?:rating\s*[:=]\s*)?(\d{1,2})(?:\s*/\s*10)?\.?", re.IGNORECASE)
_ORDER = re.compile(r"(?:order\s*[:=]\s*)?\d+(?:\s*[,>]\s*\d+)*\.?", re.IGNORECASE)
_ITEM = re.compile(r"\s*(?:\d+[.)]|[-*])\s+(\S.*)")
_NONE = re.compile(r"[\"'*]*no mistakes?\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An answer that does not keep to its operator's form, or that the budget or the context left no room for."""

    operator: str
    text: str
    why: Literal["form", "budget", "context"]


def rating(text: str) -> float | None:
    """A whole number from 0 to 10 and nothing else, as a share of 10."""
    match = _RATING.fullmatch(text.strip())
    return int(match[1]) / 10 if match and int(match[1]) <= 10 else None


def order(text: str, count: int) -> list[int] | None:
    """All numbers from 1 to `count`, each once, best first; as indices from 0."""
    if not _ORDER.fullmatch(text.strip()):
        return None
    found = [int(number) - 1 for number in re.findall(r"\d+", text)]
    return found if sorted(found) == list(range(count)) else None


def items(text: str) -> list[str] | None:
    """The numbered or dashed lines, at least one; a line before or between them is Unreadable, empty ones are not."""
    lines = [line for line in text.splitlines() if line.strip()]
    found = [match[1].strip() for line in lines if (match := _ITEM.fullmatch(line))]
    return found if found and len(found) == len(lines) else None


def words(text: str) -> list[str] | None:
    """What stands between commas, at least two, each of three words at most."""
    found = [part.strip(" .\n").casefold() for part in text.split(",")]
    found = list(dict.fromkeys(part for part in found if part and len(part.split()) <= 3))
    return found if len(found) >= 2 else None


def fault(text: str) -> str | None:
    """The first mistake in words; empty where there is none."""
    said = text.strip()
    return ("" if _NONE.match(said) else said) or ("" if said else None)


def prose(text: str) -> str | None:
    """Any words at all."""
    return text.strip() or None


def before_stop(text: str, stops: Sequence[str]) -> str:
    """The text up to the first of the stops."""
    return text[: min((text.find(stop) for stop in stops if stop in text), default=len(text))]
