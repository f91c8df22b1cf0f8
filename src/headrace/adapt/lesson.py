"""What a model learns from: texts in pieces, some of which it is to write itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from headrace.spec.errors import InvalidRequest

if TYPE_CHECKING:
    from headrace.model.tokenizer import Tokenizer

END = "\x03"
"""The character that stands in a piece where the text ends; it becomes the model's own end token."""


class Piece(NamedTuple):
    """A part of a text; `learn`: whether the model is to predict it, or only reads it."""

    text: str
    learn: bool = True


Lesson: TypeAlias = Sequence[Piece]
Draw: TypeAlias = Callable[[Random], Lesson]
"""Makes one lesson from random numbers; the same numbers always give the same lesson."""


def encode(tokenizer: Tokenizer, lesson: Lesson) -> list[tuple[int, bool]]:
    """Every token of a lesson with whether it is to be learned.

    Raises InvalidRequest without an end token, and for what is no list of pieces.
    """
    if isinstance(lesson, Piece):
        raise InvalidRequest("A lesson is a list of pieces; write [Piece(…)].", "lessons")
    row: list[tuple[int, bool]] = []
    for number, piece in enumerate(lesson):
        for place, text in enumerate(piece.text.split(END)):
            if place:
                row.append((_end(tokenizer), piece.learn))
            if text:
                ids = tokenizer.encode(text, bos=number == place == 0)
                row += [(token, piece.learn) for token in ids]
    return row


def _end(tokenizer: Tokenizer) -> int:
    if not tokenizer.eos:
        raise InvalidRequest("This model names no end token; train on lessons without an end.", "lessons")
    return tokenizer.eos[0]
