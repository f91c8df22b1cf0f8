"""Mathematical answers: numbers compared exactly here, expressions by math-verify in a process that can be killed."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from importlib.util import find_spec

from headrace.reason.answers.killable import Killed, Workers
from headrace.reason.answers.marks import Span, direct_number, marked_spans, told, whole_number
from headrace.spec.errors import InvalidRequest

WORKER = "headrace.reason.answers.math_worker"
MOST_KNOWN = 65_536
TAIL = 1000
"""Characters of an unmarked text's end in which an answer is looked for."""

_ASSIGNED = re.compile(r"\s*\\?[A-Za-z](?:_\{?\w+\}?)?\s*=\s*([^=]*)")
_FORMULA = re.compile(r"\$\s*[^$]*[\\^_A-Za-z(\[{][^$]*\$|\\[(\[]|\\[a-zA-Z]+")


class Mathematics:
    """Equal by value: 1/2, 0.5 and \\frac{1}{2}; 2\\sqrt{3} and \\sqrt{12}; x<5 and (-\\infty,5).

    `extract` gives a number in its one form, else the expression as it is written. A comparison that takes more
    than 2 s of processor time counts as "not equal" and is remembered as undecided, a reading as unparsed. May be
    used from any thread. Raises InvalidRequest where math-verify is not installed.
    """

    name = "math"

    def __init__(self, workers: Workers | None = None) -> None:
        if find_spec("math_verify") is None:
            raise InvalidRequest(
                "Answers of kind 'math' need math-verify; install it with pip install 'headrace[reason]'.", "answer"
            )
        self._workers = workers or shared_workers()
        self._lock = threading.Lock()
        self._known: dict[tuple[str, ...], object] = {}

    def extract(self, text: str) -> str | None:
        """The answer behind the last mark that has one, else the last expression of the text."""
        for candidate in self._candidates(text):
            if candidate is not None:
                return candidate
        return None

    def equal(self, a: str, b: str) -> bool:
        if a == b:
            return True
        numbers = whole_number(a), whole_number(b)
        if None not in numbers:
            return numbers[0] == numbers[1]
        return self._asked("equal", *sorted((a, b))) is True

    def undecided(self, a: str, b: str) -> bool:
        """Whether comparing these two was given up."""
        with self._lock:
            return isinstance(self._known.get(("equal", *sorted((a, b)))), Killed)

    def _candidates(self, text: str) -> Iterator[str | None]:
        for span in reversed(list(marked_spans(text))):
            yield self._of_span(span)
        yield self._read(text[-TAIL:])

    def _of_span(self, span: Span) -> str | None:
        assigned = _ASSIGNED.fullmatch(span.text)
        number = whole_number(assigned[1] if assigned else span.text)
        if number is not None:
            return told(number)
        if _FORMULA.search(span.text) is not None and not span.sure:
            return self._read(span.text)
        if span.sure or span.text.startswith(("(", "[", "{")):
            return self._read(f"\\boxed{{{span.text.rstrip('.')}}}") if span.text else None
        number = direct_number(span)
        return None if number is None else told(number)

    def _read(self, text: str) -> str | None:
        found = self._asked("read", text)
        if not isinstance(found, list):
            return None
        written, exact = found
        assigned = _ASSIGNED.fullmatch(written)
        number = whole_number(assigned[1] if assigned else written)
        if number is None and exact is not None:
            number = Fraction(exact)
        return told(number) if number is not None else " ".join(written.split()) or None

    def _asked(self, *request: str) -> object:
        with self._lock:
            if request in self._known:
                return self._known[request]
        try:
            found = self._workers.call(*request)
        except Killed as killed:
            found = killed
        with self._lock:
            while len(self._known) >= MOST_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[request] = found
        return found


@cache
def shared_workers() -> Workers:
    """One pool a process; it ends with it."""
    return Workers(WORKER)
