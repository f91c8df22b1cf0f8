"""Answers that need no library: exact text, numbers, choices, JSON."""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from headrace.reason.answers.marks import direct_number, last_number, marked_spans, told


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
    """The number behind the last mark (`\\boxed{`, `####`, `answer is`, `answer:`), else the last one; equal by value.

    Currencies, thousands commas, percent signs and markup are no part of it: $1,234.50 is 1234.5, 45% is 45.
    """

    name: str = "number"

    def extract(self, text: str) -> str | None:
        marked = [number for span in marked_spans(text) if (number := direct_number(span)) is not None]
        value = marked[-1] if marked else last_number(text)
        return None if value is None else told(value)

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
        marked = [letter for span in marked_spans(text) for letter in one.findall(span.text)[:1]]
        found = marked or one.findall(text)
        return found[-1] if found else None

    def equal(self, a: str, b: str) -> bool:
        return a == b


@dataclass(frozen=True, slots=True)
class Line:
    """What stands behind the last mark on its line, or in its box, or the only line of a text; without markup.

    A text of several lines without a mark is unparsed: its last line may be anything. Equal without case.
    """

    name: str = "line"

    def extract(self, text: str) -> str | None:
        spans, lines = [_unmarked(span.text) for span in marked_spans(text)], text.strip().splitlines()
        found = [span for span in spans if span] if spans else [_unmarked(line) for line in lines if len(lines) == 1]
        return (found[-1] if found else None) or None

    def equal(self, a: str, b: str) -> bool:
        return a.casefold() == b.casefold()


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


def _unmarked(line: str) -> str:
    """A line without what only dresses it: bold, code, mathematics, a full stop."""
    bare = re.sub(r"\\text\{([^{}]*)\}|\\[()\[\]]", r"\1", line)
    while (less := bare.strip().strip("*`$").removesuffix(".")) != bare:
        bare = less
    return bare


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
