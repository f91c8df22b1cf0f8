"""Answers that need no library: exact text, numbers, choices, JSON."""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?")
_MARKED = re.compile(r"(?:####|\\boxed\{|[Aa]nswer(?: is)?\s*[:=]?)\s*\$?\s*([^\n}]*)")


@dataclass(frozen=True, slots=True)
class Text:
    """The whole text, without space around it, case and runs of space."""

    name: str = "text"

    def extract(self, text: str) -> str | None:
        return " ".join(unicodedata.normalize("NFKC", text).casefold().split()) or None

    def equal(self, a: str, b: str) -> bool:
        return a == b


@dataclass(frozen=True, slots=True)
class Number:
    """The number behind the last mark (`####`, `\\boxed{`, `answer:`), else the last number; equal by value."""

    name: str = "number"

    def extract(self, text: str) -> str | None:
        marked = [found for mark in _MARKED.finditer(text) for found in _NUMBER.findall(mark[1])[:1]]
        numbers = marked or _NUMBER.findall(text)
        value = _exact(numbers[-1]) if numbers else None
        return None if value is None else str(value)

    def equal(self, a: str, b: str) -> bool:
        return a == b


@dataclass(frozen=True, slots=True)
class Choice:
    """A letter: behind the last mark, else the last one that stands alone."""

    letters: str = "ABCDE"

    @property
    def name(self) -> str:
        return f"choice:{self.letters}"

    def extract(self, text: str) -> str | None:
        one = re.compile(rf"(?<![A-Za-z])\(?([{re.escape(self.letters)}])\)?(?![A-Za-z'])")
        marked = [found for mark in _MARKED.finditer(text) for found in one.findall(mark[1])[:1]]
        found = marked or one.findall(text)
        return found[-1] if found else None

    def equal(self, a: str, b: str) -> bool:
        return a == b


@dataclass(frozen=True, slots=True)
class Json:
    """The last JSON object or list in the text; equal by value."""

    name: str = "json"

    def extract(self, text: str) -> str | None:
        decoder, best, at = json.JSONDecoder(), None, 0
        while (match := re.compile(r"[\[{]").search(text, at)) is not None:
            try:
                value, at = decoder.raw_decode(text, match.start())
            except ValueError:
                at = match.start() + 1
                continue
            best = value
        return None if best is None else _canonical(best)

    def equal(self, a: str, b: str) -> bool:
        return a == b


def _exact(number: str) -> Fraction | None:
    try:
        if "." in number and "/" in number:
            whole, _, below = number.replace(",", "").partition("/")
            return Fraction(whole) / Fraction(below)
        return Fraction(number.replace(",", ""))
    except (ValueError, ZeroDivisionError):
        return None


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
