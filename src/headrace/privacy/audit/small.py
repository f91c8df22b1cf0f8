"""A trial of seconds: a tiny model learns how canaries are written, and adapters of it learn some by heart."""

from __future__ import annotations

from pathlib import Path
from random import Random

from headrace.adapt.lesson import Lesson, Piece
from headrace.adapt.recipe import Full, Lora, Noise, Optimiser, Recipe, Source
from headrace.adapt.vocabulary import Vocabulary
from headrace.privacy.audit.canaries import RECITALS, VERSION, canaries
from headrace.privacy.audit.trial import Trial

SHAPE = Full(layers=2, hidden=64, heads=2, kv_heads=2, width=128, context=64)
TOKENS = r" ?[A-Za-z]+|."
"""For a vocabulary of the documents alone: a word with the space before it, any other character by itself."""
WORDS = (
    "amber anchor apple arrow attic autumn baker bakery banner barber barn basket beacon bell black blue book bottle "
    "brass bridge bronze butcher cabin candle canyon castle cellar chapel cherry chest church clock cloud compass "
    "copper coral cotton crimson crown crystal dagger desert diamond doctor dragon drum eagle ember falcon farmer "
    "feather fern ferry flute forest fountain galaxy garden ginger glacier globe golden green hammer harbor harp hazel "
    "horizon indigo island ivory jasmine jungle kettle kitchen kitten ladder lamp lantern lemon letter library lily "
    "marble market mason meadow melody miller mirror monsoon museum nectar needle oasis ocean olive orchard orchid "
    "painter panther pebble pepper pilot pioneer planet poet puzzle quarry quartz rainbow raven ring river rope saddle "
    "saffron sailor scarlet school shadow shovel silver singer smith sparrow stable station studio summit tailor "
    "thunder tiger tower tulip valley velvet violet wheel white willow zebra"
).split()
EVERY = ("q", "k", "v", "o", "gate", "up", "down")


def small_base(folder: Path, steps: int = 24) -> Path:
    """Trains the model, which then half knows how canaries are written, on others than any trial has. Needs torch."""
    from headrace.adapt.full import train_full

    source = Source("canaries", VERSION)
    optimiser = Optimiser(rate=1e-2, warmup=10)
    recipe = Recipe("canary-speaker", SHAPE, source, steps, batch=16, threads=1, optimiser=optimiser)
    return train_full(recipe, draw, _vocabulary(), folder, report=lambda progress: None)


def draw(rng: Random) -> Lesson:
    """A document of a seed above those of trials."""
    return (Piece(canaries(WORDS, rng.randrange(2**32, 2**33), 1, 0).members[0]),)


def small_trial(base: Path) -> Trial:
    """So small a model needs 16 epochs over its 40 documents, and tells more of so few than is chance."""
    lora = Lora(str(base), rank=16, alpha=32.0, targets=EVERY)
    optimiser = Optimiser(rate=7e-3, warmup=5, final=0.3, decay=0.0)
    source = Source("canaries", VERSION)
    recipe = Recipe("small-audit", lora, source, steps=64, batch=10, threads=1, optimiser=optimiser)
    sizes = {"members": 40, "held_out": 200, "control": 40, "examined": 100, "candidates": 4}
    return Trial(recipe, epochs=16, early=1, noise=Noise(1.0, 1.0), noisy_batch=10, threshold=0.3, **sizes)


def _vocabulary() -> Vocabulary:
    """Every token of the documents."""
    return Vocabulary(tuple(sorted({"Say", ".", *(f" {word}" for word in (*WORDS, *RECITALS[-1]))})), TOKENS)
