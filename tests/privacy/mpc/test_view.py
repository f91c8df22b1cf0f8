"""The tests of views: noise passes, a plain number in it does not."""

from __future__ import annotations

import numpy as np

from headrace.privacy.mpc.view import LEAST_BYTES, View, judge, sameness, uniformity

SIZE = 1 << 16


def noise(seed: int, size: int = SIZE) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def plain(scale: float, size: int = SIZE) -> bytes:
    """Fixed-point numbers as they stand."""
    numbers = np.random.default_rng(9).standard_normal(size // 8) * scale
    return np.rint(numbers * 2**18).astype(np.int64).tobytes()


def skewed(seed: int) -> bytes:
    """Small byte values only: far from uniform, but independent of each other."""
    return np.random.default_rng(seed).integers(0, 100, SIZE).astype(np.uint8).tobytes()


def test_noise_passes_every_test() -> None:
    for seed in range(20):
        one = View(0, (noise(seed), noise(seed + 100, 777)), (noise(seed + 200),))
        other = View(0, (noise(seed + 300),), (noise(seed + 400),))
        assert all(finding.sound for finding in judge(one, other))


def test_a_plain_number_in_a_view_is_caught() -> None:
    sound = View(0, (noise(0),), (noise(1),))
    told = View(0, (noise(2), plain(1.0, SIZE // 16)), (noise(3),))
    broken = [finding.what for finding in judge(told, sound) if not finding.sound]
    assert broken == ["party 0's shares", "party 0's shares of two inputs"]


def test_two_inputs_are_told_apart_even_without_uniformity() -> None:
    assert not sameness("x", [plain(1.0)], [plain(1000.0)]).sound
    assert sameness("x", [skewed(1)], [skewed(2)]).sound


def test_too_few_bytes_prove_nothing() -> None:
    assert not uniformity("x", [noise(0, LEAST_BYTES - 1)]).sound and uniformity("x", [noise(0, LEAST_BYTES)]).sound
    assert not uniformity("x", []).sound and not sameness("x", [], [noise(0)]).sound
