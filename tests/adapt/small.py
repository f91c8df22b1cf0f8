"""A recipe small enough for a test, and lessons of one repeated pattern."""

from __future__ import annotations

from random import Random

import msgspec

from headrace.adapt.lesson import END, Lesson, Piece
from headrace.adapt.recipe import Full, Optimiser, Recipe, Source, Target
from headrace.adapt.vocabulary import Vocabulary

SHAPE = Full(layers=2, hidden=64, heads=2, kv_heads=1, width=96, context=64)
VOCABULARY = Vocabulary(tuple("abcdefgh>\n"), r".|\n")


def recipe(train: Target = SHAPE, **changes: object) -> Recipe:
    optimiser = Optimiser(rate=1e-2, warmup=4)
    made = Recipe("small", train, Source("letters"), steps=20, batch=8, seed=3, threads=1, optimiser=optimiser)
    return msgspec.structs.replace(made, **changes)


def echo(rng: Random) -> Lesson:
    """Some letters, to be written once more."""
    text = "".join(rng.choice("abcdefgh") for _ in range(rng.randint(2, 6)))
    return Piece(f"{text}>", learn=False), Piece(f"{text}\n{END}")


def laugh(rng: Random) -> Lesson:
    """Some letters, and always the same reply."""
    text = "".join(rng.choice("abcdefgh") for _ in range(rng.randint(2, 6)))
    return Piece(f"{text}>", learn=False), Piece(f"haha\n{END}")
