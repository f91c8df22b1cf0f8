"""Align finds a planted key by either start, through noise, and finds nothing in another model."""

from __future__ import annotations

import numpy as np
import pytest

from privacy.attacks.keyed import embedding, key

pytest.importorskip("scipy", reason="needs the extra headrace[privacy]")

from headrace.privacy.attacks.align import align, by_invariants, by_moments, procrustes
from headrace.privacy.attacks.nearest import nearest
from headrace.privacy.attacks.recovery import Clock, score_map
from headrace.spec.errors import InvalidRequest

VOCAB, DIM = 3000, 48
PUBLIC = embedding(VOCAB, DIM)
GAIN = np.random.default_rng(2).uniform(0.2, 2, DIM).astype(np.float32)


def test_nearest_is_brute_force_s() -> None:
    rng = np.random.default_rng(0)
    rows, targets = rng.standard_normal((700, 5)), rng.standard_normal((600, 5))
    apart = np.linalg.norm(rows[:, None] - targets, axis=2)
    found = nearest(rows, targets)
    assert (found.of_rows == apart.argmin(axis=1)).all()
    assert (found.mutual == (apart.argmin(axis=0)[found.of_rows] == np.arange(700))).all()


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_a_planted_key_is_found_by_moments(noise: float) -> None:
    planted = key(VOCAB, DIM)
    deployed = planted.table(PUBLIC, noise)
    clock = Clock()
    found = align(PUBLIC, deployed)
    result = score_map("align", found.token_map, planted.truth, clock.cost(PUBLIC, deployed))
    assert result.types.value > 0.99 and result.types.low > result.types.chance
    assert result.cost.seconds > 0 and result.cost.bytes == 2 * PUBLIC.nbytes
    assert np.linalg.norm(found.rotation - planted.rotation) / np.sqrt(DIM) < 0.02 + noise / 5


def test_matching_again_helps_through_noise() -> None:
    planted = key(VOCAB, DIM)
    deployed = planted.table(PUBLIC, 0.3)
    alone = by_moments(PUBLIC, deployed).of_rows == planted.truth
    assert alone.mean() < 0.97 < (align(PUBLIC, deployed).token_map == planted.truth).mean()


def test_a_planted_key_is_found_by_invariants() -> None:
    planted = key(VOCAB, DIM)
    heads = (PUBLIC * GAIN, planted.table(PUBLIC * GAIN))
    deployed = planted.table(PUBLIC)
    assert (by_invariants((PUBLIC, heads[0]), (deployed, heads[1])).of_rows == planted.truth).mean() > 0.9
    found = align(PUBLIC, deployed, heads)
    assert (found.token_map == planted.truth).all()


def test_an_independent_key_is_found_by_chance_only() -> None:
    """The artefact is of one key, the score of another: what remains is chance."""
    found = align(PUBLIC, key(VOCAB, DIM).table(PUBLIC))
    null = score_map("align", found.token_map, key(VOCAB, DIM, seed=9).truth, Clock().cost(PUBLIC))
    assert null.types.contains_chance and null.mass.contains_chance


def test_another_model_s_weights_say_nothing() -> None:
    planted = key(VOCAB, DIM)
    found = align(PUBLIC, planted.table(embedding(VOCAB, DIM, seed=77)))
    assert score_map("align", found.token_map, planted.truth, Clock().cost(PUBLIC)).types.contains_chance


def test_procrustes_is_orthogonal_and_right() -> None:
    rotation = key(2, DIM).rotation
    found = procrustes(PUBLIC, PUBLIC @ rotation)
    assert np.allclose(found @ found.T, np.eye(DIM)) and np.allclose(found, rotation, atol=1e-5)


def test_tables_of_other_shape_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="of one model"):
        align(PUBLIC, PUBLIC[:-1])
