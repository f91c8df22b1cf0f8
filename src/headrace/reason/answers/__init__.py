"""Answer spaces: what counts as an answer, and when two are the same."""

from __future__ import annotations

from headrace.reason.answers.mathematics import Mathematics
from headrace.reason.answers.plain import Choice, Json, Line, Number, Text
from headrace.spec.errors import InvalidRequest
from headrace.spec.reasoning import AnswerSpace

SPACES = ("text", "number", "choice", "line", "json", "math")


def answer_space(name: str) -> AnswerSpace:
    """The space of that name; `choice:ABCD` names its letters. Raises InvalidRequest."""
    kind, _, rest = name.partition(":")
    if kind == "choice":
        return Choice(rest or "ABCDE")
    if name == "math":
        return Mathematics()
    plain: dict[str, AnswerSpace] = {"text": Text(), "number": Number(), "line": Line(), "json": Json()}
    if name not in plain:
        raise InvalidRequest(f"There are no answers of kind {name!r}; give one of {', '.join(SPACES)}.", "answer")
    return plain[name]


__all__ = ["SPACES", "Choice", "Json", "Line", "Mathematics", "Number", "Text", "answer_space"]
