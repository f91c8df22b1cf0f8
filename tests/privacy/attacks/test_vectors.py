"""Vectors give their texts' tokens away, turned or not; vectors of something else do not."""

from __future__ import annotations

import numpy as np
import pytest

from privacy.attacks.keyed import orthogonal

pytest.importorskip("scipy.optimize", reason="needs the extra headrace[privacy]")

from headrace.privacy.attacks.vectors import bags, invert
from headrace.spec.errors import InvalidRequest

VOCAB, DIM, LENGTH = 60, 32, 6
RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(VOCAB, DIM))


def texts(count: int) -> list[list[int]]:
    return RNG.integers(VOCAB, size=(count, LENGTH)).tolist()


def vectors(held: list[list[int]]) -> np.ndarray:
    """Means of embeddings, of length one, as an encoder's pooled states are."""
    means = bags(held, VOCAB) @ TABLE / LENGTH
    return means / np.linalg.norm(means, axis=1, keepdims=True)


THEIRS, OWN = texts(80), texts(600)


def test_tokens_are_read_off_vectors() -> None:
    found = invert(vectors(THEIRS), vectors(OWN), THEIRS, OWN, VOCAB)
    assert found.types.value > 0.8 and found.types.low > found.types.chance and found.mass.low > found.mass.chance
    assert found.details["most_frequent"] < 0.3 and found.cost.seconds > 0 and found.cost.bytes > 0


def test_a_secret_rotation_changes_nothing() -> None:
    turn = orthogonal(np.random.default_rng(3), DIM)
    plain, turned = (invert(vectors(THEIRS) @ q, vectors(OWN) @ q, THEIRS, OWN, VOCAB) for q in (np.eye(DIM), turn))
    assert turned.types.value == pytest.approx(plain.types.value, abs=0.02)


def test_vectors_of_other_texts_say_nothing() -> None:
    null = invert(vectors(texts(80)), vectors(OWN), THEIRS, OWN, VOCAB)
    assert null.types.contains_chance and null.mass.contains_chance


def test_empty_texts_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="more lines"):
        invert(vectors(THEIRS)[:1], vectors(OWN), THEIRS[:1], OWN, VOCAB)
