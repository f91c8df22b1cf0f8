"""Lessons side by side, each batch a function of the seed and the number of its step alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from headrace.adapt.lesson import Draw, Lesson, encode
from headrace.spec.errors import ContextExceeded, InvalidRequest

if TYPE_CHECKING:
    from headrace.model.tokenizer import Tokenizer

WINDOW = 8
"""Batches whose lessons are drawn together and sorted by length, so that little is padded."""
MULTIPLE = 8


@dataclass(frozen=True, slots=True)
class Batch:
    """`tokens` [lessons, length] int64, padded behind; `learn` [lessons, length] tells which are to be predicted."""

    tokens: np.ndarray
    learn: np.ndarray

    def each(self) -> Iterator[Batch]:
        """Its lessons one by one."""
        for row in range(len(self.tokens)):
            yield Batch(self.tokens[row : row + 1], self.learn[row : row + 1])


class Batches:
    """`batches[step]`: lessons drawn anew, those of like length together.

    Raises ContextExceeded for a lesson longer than `context`.
    """

    def __init__(self, draw: Draw, tokenizer: Tokenizer, size: int, context: int, seed: int) -> None:
        self._draw, self._tokenizer, self._size, self._context, self._seed = draw, tokenizer, size, context, seed
        self._window: tuple[int, list[Batch]] = (-1, [])

    def __getitem__(self, step: int) -> Batch:
        number, place = divmod(step, WINDOW)
        if self._window[0] != number:
            self._window = (number, self._fill(Random(f"{self._seed} {number}")))
        return self._window[1][place]

    def _fill(self, rng: Random) -> list[Batch]:
        rows = [encode(self._tokenizer, self._draw(rng)) for _ in range(WINDOW * self._size)]
        rows.sort(key=len)
        _check_length(rows, self._context)
        batches = [_pad(rows[at : at + self._size]) for at in range(0, len(rows), self._size)]
        rng.shuffle(batches)
        return batches


class Epochs:
    """`epochs[step]`: the same lessons again and again, each exactly once an epoch, every epoch in its own order.

    The last batch of an epoch has what is left. Raises ContextExceeded for a lesson longer than `context`,
    InvalidRequest where there is none.
    """

    def __init__(self, lessons: Sequence[Lesson], tokenizer: Tokenizer, size: int, context: int, seed: int) -> None:
        if not lessons:
            raise InvalidRequest("There are no lessons; give at least one.", "lessons")
        self._rows = [encode(tokenizer, lesson) for lesson in lessons]
        self._size, self._seed = size, seed
        _check_length(self._rows, context)

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-len(self._rows) // self._size)

    def __getitem__(self, step: int) -> Batch:
        epoch, place = divmod(step, len(self))
        order = list(range(len(self._rows)))
        Random(f"{self._seed} epoch {epoch}").shuffle(order)
        chosen = order[place * self._size : (place + 1) * self._size]
        return _pad(sorted((self._rows[number] for number in chosen), key=len))


def _check_length(rows: list[list[tuple[int, bool]]], context: int) -> None:
    longest = max(map(len, rows))
    if longest > context:
        raise ContextExceeded(f"A lesson has {longest} tokens and the context is {context}; train with a longer one.")


def _pad(rows: list[list[tuple[int, bool]]]) -> Batch:
    length = -(-len(rows[-1]) // MULTIPLE) * MULTIPLE
    tokens, learn = np.zeros((len(rows), length), np.int64), np.zeros((len(rows), length), bool)
    for number, row in enumerate(rows):
        tokens[number, : len(row)], learn[number, : len(row)] = zip(*row, strict=True)
    return Batch(tokens, learn)
