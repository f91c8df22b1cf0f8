"""A trial of seconds: a tiny model learns how canaries are written, and adapters of it learn some by heart."""

from __future__ import annotations

from pathlib import Path
from random import Random

from headrace.adapt.lesson import Lesson, Piece
from headrace.adapt.recipe import Full, Lora, Noise, Optimiser, Recipe, Source
from headrace.privacy.audit.canaries import VERSION, canaries, vocabulary
from headrace.privacy.audit.trial import Trial

SHAPE = Full(layers=2, hidden=64, heads=2, kv_heads=2, width=128, context=64)
EVERY = ("q", "k", "v", "o", "gate", "up", "down")


def small_base(folder: Path, steps: int = 24) -> Path:
    """Trains the model, which then half knows how canaries are written, on others than any trial has. Needs torch."""
    from headrace.adapt.full import train_full

    source = Source("canaries", VERSION)
    optimiser = Optimiser(rate=1e-2, warmup=10)
    recipe = Recipe("canary-speaker", SHAPE, source, steps, batch=16, threads=1, optimiser=optimiser)
    return train_full(recipe, draw, vocabulary(), folder, report=lambda progress: None)


def draw(rng: Random) -> Lesson:
    """A document of a seed above those of trials."""
    return (Piece(canaries(rng.randrange(2**32, 2**33), 1, 0).members[0]),)


def small_trial(base: Path) -> Trial:
    """So small a model needs 26 epochs over its 40 documents, and tells more of so few than is chance."""
    lora = Lora(str(base), rank=16, alpha=32.0, targets=EVERY)
    optimiser = Optimiser(rate=7e-3, warmup=5, final=0.3, decay=0.0)
    source = Source("canaries", VERSION)
    recipe = Recipe("small-audit", lora, source, steps=104, batch=10, threads=1, optimiser=optimiser)
    sizes = {"members": 40, "held_out": 200, "control": 40, "examined": 100, "candidates": 4}
    return Trial(recipe, epochs=26, early=3, noise=Noise(1.0, 2.0), noisy_batch=10, threshold=0.3, **sizes)
