"""Keys: golden vectors, apartness, the shape of what is drawn."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

pytest.importorskip("cryptography", reason="headrace[privacy] is not installed")

from headrace.privacy.veil.errors import KeyFileError
from headrace.privacy.veil.keys import MODEL, Keystream, Master

MASTER = Master(bytes(range(32)), "ab" * 32)
NORMALS = [1.543385598, -0.784607597, 0.450584396]
LARGE = "6a7344798499955e41ad753116544e4e8b7ba8eb190070512208ba54812bff88"
ORTHOGONAL = [[0.324357283385, -0.945934645055], [-0.945934645055, -0.324357283385]]


def test_golden_vectors() -> None:
    assert MASTER.derive(MODEL, "tokens").hex() == "1ff26b59485c374be05dcf41d3a16f4b983996c16db0d6df98ef9468b0a0d312"
    assert MASTER.key_id() == "aa1817b8d8a36e7554b522d34fb16bcd818a629dd6afa9a48d1ccf2d05400e2a"
    draws = MASTER.stream(3, "x")
    assert draws.words(3).tolist() == [17811951317909528230, 15539018855705496101, 16322135358614404030]
    assert draws.permutation(8).tolist() == [0, 3, 5, 7, 6, 1, 2, 4]
    assert draws.signs(5).tolist() == [1, 1, -1, 1, -1]
    assert draws.normals(3).round(9).tolist() == NORMALS
    large = MASTER.stream(MODEL, "tokens").permutation(152_064)
    assert hashlib.sha256(large.astype("<i8").tobytes()).hexdigest() == LARGE
    np.testing.assert_allclose(MASTER.stream(0, "y").orthogonal(2), ORTHOGONAL, atol=1e-12)


def test_every_part_of_a_name_gives_another_key() -> None:
    others = (
        MASTER.derive(1, "tokens"), MASTER.derive(MODEL, "stream"), MASTER.rotated().derive(MODEL, "tokens"),
        Master(MASTER.secret, "cd" * 32).derive(MODEL, "tokens"),
        Master(bytes(32), MASTER.model).derive(MODEL, "tokens"),
    )  # fmt: skip
    assert len({MASTER.derive(MODEL, "tokens"), *others}) == 6
    assert MASTER.rotated().key_id() != MASTER.key_id()


def test_a_master_has_32_bytes_and_does_not_show_them() -> None:
    with pytest.raises(KeyFileError, match="32"):
        Master(bytes(31), "ab" * 32)
    assert MASTER.secret.hex() not in repr(MASTER)
    assert Master.new("ab" * 32).secret != Master.new("ab" * 32).secret


def test_words_with_a_tie_are_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    draws, given = MASTER.stream(0, "z"), iter([[5, 1, 5], [9, 7, 8]])
    monkeypatch.setattr(Keystream, "words", lambda self, count: np.array(next(given), np.uint64))
    assert draws.permutation(3).tolist() == [1, 2, 0]


def test_matrices_are_orthogonal_or_bounded() -> None:
    turn = MASTER.stream(0, "turn").orthogonal(48)
    assert np.abs(turn @ turn.T - np.eye(48)).max() < 1e-13
    for condition in (1.0, 1.5, 3.0):
        key = MASTER.stream(0, "key").general(24, condition)
        assert np.linalg.cond(key) <= condition * (1 + 1e-9)
        scales = MASTER.stream(0, "scales").scales(1000, condition)
        assert scales.max() / scales.min() <= condition * (1 + 1e-9)


def test_draws_are_spread_as_they_should_be() -> None:
    draws = MASTER.stream(0, "spread")
    normals, signs = draws.normals(200_001), draws.signs(100_000)
    assert abs(normals.mean()) < 0.01 and abs(normals.std() - 1) < 0.01 and abs((normals**3).mean()) < 0.03
    assert abs(signs.mean()) < 0.02
    order = draws.permutation(5000)
    assert sorted(order.tolist()) == list(range(5000)) and (order == np.arange(5000)).sum() < 10
