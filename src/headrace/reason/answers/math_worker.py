"""The process in which math-verify runs: reading an expression, and comparing two."""

from __future__ import annotations

from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
from sympy import Rational

from headrace.reason.answers.killable import serve

BOXED = (LatexExtractionConfig(boxed_match_priority=0),)
ANY = (LatexExtractionConfig(), ExprExtractionConfig())


def read(text: str) -> list[str | None] | None:
    """The expression in a text as it is written there, and its value where it is a rational number."""
    found = _parsed(text, ANY)
    if not found:
        return None
    value, written = found[0], found[-1]
    exact = f"{value.p}/{value.q}" if isinstance(value, Rational) else None
    return [str(written), exact]


def equal(a: str, b: str) -> bool:
    """Whether the library calls them equal in either direction: it is not symmetric."""
    one, other = _answer(a), _answer(b)
    if not one or not other:
        return "".join(a.split()) == "".join(b.split())
    return any(bool(verify(*pair, timeout_seconds=None)) for pair in ((one, other), (other, one)))


def _answer(answer: str) -> list[Any]:
    return _parsed(f"\\boxed{{{answer}}}", BOXED) or _parsed(answer, ANY)


def _parsed(text: str, how: tuple[Any, ...]) -> list[Any]:
    """The value and the text it was read from; nothing where there is only text."""
    found: list[Any] = parse(text, how, parsing_timeout=None)
    return [] if not found or isinstance(found[0], str) else found


if __name__ == "__main__":
    serve({"read": read, "equal": equal})
