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


def test_tokens_of_the_victims_alone_are_never_named() -> None:
    """Which tokens the victim's texts have is for the score; the attacker knows those of its own texts."""
    theirs, own = [[1, 2, 58], [3, 4, 59]] * 20, [[token % 50 for token in text] for text in OWN]
    known = vectors(own)
    found = invert(np.zeros((40, DIM)), known, theirs, own, VOCAB)
    named_alike = invert(np.zeros((40, DIM)), known, [[1, 2, 51], [3, 4, 52]] * 20, own, VOCAB)
    assert found.types == named_alike.types and found.types.value <= 2 / 3
    few = invert(np.zeros((2, DIM)), np.eye(2, DIM), [[1, 2, 3, 4]] * 2, [[1], [2]], VOCAB)
    assert few.types.value == 0.5, "all that the attacker has seen"


def test_empty_texts_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="more lines"):
        invert(vectors(THEIRS)[:1], vectors(OWN), THEIRS[:1], OWN, VOCAB)
