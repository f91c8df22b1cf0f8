"""Where in a text the answer stands, and which number is written there.

Answers are lost where a reader is brittle: `\\frac{3}{4}` is not 3, `10-3` holds no -3, `Answer: Janet has 16
eggs` is the beginning of a solution and not its end. What is read here is read exactly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

_WORDED = r"(?i:\banswer\b(?!\s+(?:is|was)\s+not\b)[^.\n:=]{0,60}?(?:\b(?:is|be|are)\b|[:=]))"
_MARK = re.compile(rf"(?P<boxed>\\boxed\s*\{{)|(?P<hash>####)|(?P<worded>{_WORDED})")
_REWRITES = (
    (re.compile("[\u2212\ufe63\uff0d]"), "-"),
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"\1/\2"),
    (re.compile(r"\{,\}|(?<=\d)\\[,!;](?=\d)"), ","),
    (re.compile(r"\\([$%#&])"), r"\1"),
    (re.compile(r"\s*(?:\\times|\\cdot|[×*])\s*10\s*\^\s*\{?\s*([-+]?\d+)\s*\}?"), r"e\1"),
)
_UNSIGNED = r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3}(?!\d))?"
_NUMBER = re.compile(
    rf"(?<![\w.])(?:(?<![)\]}}])(?P<sign>[-+])(?=[$€£\d.]))?[$€£]?\s?"
    rf"(?:(?P<whole>\d+)\s+(?P<over>\d+)/(?P<under>\d+)|(?P<top>{_UNSIGNED})(?:\s?/\s?(?P<bottom>{_UNSIGNED}))?)"
)
_BEFORE = re.compile(r"[\s*_$€£\\(\[{:=~≈-]*(?:text|mathbf|textbf|mathrm)?[\s*_$€£\\(\[{:=~≈+-]*")
LONGEST = 400
"""Digits of a number that counts as one."""


@dataclass(frozen=True, slots=True)
class Span:
    """What follows a mark: the content of a box, else the rest of the line. `sure`: the mark is not a mere word."""

    text: str
    sure: bool


def marked_spans(text: str) -> Iterator[Span]:
    """In the order of the text."""
    for mark in _MARK.finditer(text):
        rest = text[mark.end() :]
        if mark["boxed"]:
            yield Span(_balanced(rest), True)
        else:
            yield Span(rest.lstrip().partition("\n")[0].strip(), mark["hash"] is not None)


def _balanced(text: str) -> str:
    """Up to the brace that closes the one before it; all of a text that never closes it."""
    depth = 1
    for place, letter in enumerate(text):
        depth += (letter == "{") - (letter == "}")
        if depth == 0:
            return text[:place]
    return text


def direct_number(span: Span) -> Fraction | None:
    """The number that a span gives: behind its last `=`, else its first; behind words only where the mark is sure."""
    line = rewritten(span.text)
    sums = [part for part in line.split("=")[1:] if _NUMBER.search(part)]
    if sums and (span.sure or _directly(line)):
        return first_number(sums[-1])
    return first_number(line) if span.sure or _directly(line) else None


def _directly(line: str) -> bool:
    return _NUMBER.match(line, _BEFORE.match(line).end()) is not None  # type: ignore[union-attr]


def first_number(line: str) -> Fraction | None:
    return next((value for found in _NUMBER.finditer(line) if (value := _value(found)) is not None), None)


def last_number(text: str) -> Fraction | None:
    values = [value for found in _NUMBER.finditer(rewritten(text)) if (value := _value(found)) is not None]
    return values[-1] if values else None


def whole_number(text: str) -> Fraction | None:
    """The number that the text is, with its currency, percent sign and full stop; None where there is more in it."""
    line = rewritten(text).strip().strip("$").rstrip(".").strip()
    found = _NUMBER.match(line)
    return _value(found) if found is not None and line[found.end() :].strip() in ("", "%") else None


def rewritten(text: str) -> str:
    for pattern, plain in _REWRITES:
        text = pattern.sub(plain, text)
    return text


def _value(found: re.Match[str]) -> Fraction | None:
    if len(found[0]) > LONGEST:
        return None
    try:
        if found["whole"]:
            value = int(found["whole"]) + Fraction(int(found["over"]), int(found["under"]))
        else:
            value = _decimal(found["top"]) / (_decimal(found["bottom"]) if found["bottom"] else 1)
    except (ValueError, ZeroDivisionError):
        return None
    return -value if found["sign"] == "-" else value


def _decimal(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))


def told(value: Fraction) -> str:
    """One way to write each value: 7, -2.5, 1/3."""
    shift, rest = 0, value.denominator
    for prime in (2, 5):
        count = 0
        while rest % prime == 0:
            rest, count = rest // prime, count + 1
        shift = max(shift, count)
    if rest != 1 or shift == 0:
        return str(value)
    digits = str(abs(value.numerator) * 10**shift // value.denominator).rjust(shift + 1, "0")
    return f"{'-' * (value < 0)}{digits[:-shift]}.{digits[-shift:]}"
