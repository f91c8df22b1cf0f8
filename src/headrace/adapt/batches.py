"""Lessons of equal length side by side, each batch a function of the seed and the number of its step alone."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from headrace.adapt.lesson import Draw, encode
from headrace.spec.errors import ContextExceeded

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


class Batches:
    """`batches[step]`. Raises ContextExceeded for a lesson longer than `context`."""

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
        if len(rows[-1]) > self._context:
            raise ContextExceeded(
                f"A lesson has {len(rows[-1])} tokens and the context is {self._context}; train with a longer one."
            )
        batches = [_pad(rows[at : at + self._size]) for at in range(0, len(rows), self._size)]
        rng.shuffle(batches)
        return batches


def _pad(rows: list[list[tuple[int, bool]]]) -> Batch:
    length = -(-len(rows[-1]) // MULTIPLE) * MULTIPLE
    tokens, learn = np.zeros((len(rows), length), np.int64), np.zeros((len(rows), length), bool)
    for number, row in enumerate(rows):
        tokens[number, : len(row)], learn[number, : len(row)] = zip(*row, strict=True)
    return Batch(tokens, learn)
