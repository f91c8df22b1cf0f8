"""Rotary frequencies in double precision; every backend casts the same numbers."""

from __future__ import annotations

import math

from headrace.spec.model import Rope


def rope_frequencies(rope: Rope, length: int = 0) -> tuple[float, ...]:
    """Radians a position for each of `rope.dim / 2` pairs.

    `length` matters to `dynamic` only: the number of positions up to and including the rotated one.
    The frequency of a token thus depends on its own position alone, never on how much of the
    sequence is computed together with it.
    """
    theta, half = rope.theta, rope.dim // 2
    if rope.scaling == "dynamic" and length > rope.original:
        stretch = rope.factor * length / rope.original - (rope.factor - 1)
        theta *= stretch ** (rope.dim / (rope.dim - 2))
    plain = [theta ** (-2 * i / rope.dim) for i in range(half)]
    if rope.factors:
        return tuple(f / d for f, d in zip(plain, rope.factors, strict=True))
    if rope.scaling == "linear":
        return tuple(f / rope.factor for f in plain)
    if rope.scaling == "llama3":
        return tuple(_llama3(rope, f) for f in plain)
    if rope.scaling == "yarn":
        return tuple(_yarn(rope, i, f) for i, f in enumerate(plain))
    return tuple(plain)


def rope_amplitude(rope: Rope) -> float:
    """Factor on cos and sin: 1 but for yarn and longrope."""
    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.scaling == "yarn":
        if rope.mscale and rope.mscale_all_dim:
            return _mscale(rope.factor, rope.mscale) / _mscale(rope.factor, rope.mscale_all_dim)
        return _mscale(rope.factor, 1.0)
    if rope.scaling == "longrope" and rope.factor > 1:
        return math.sqrt(1 + math.log(rope.factor) / math.log(rope.original))
    return 1.0


def _mscale(factor: float, weight: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def _llama3(rope: Rope, frequency: float) -> float:
    wavelength = 2 * math.pi / frequency
    if wavelength < rope.original / rope.high_freq_factor:
        return frequency
    if wavelength > rope.original / rope.low_freq_factor:
        return frequency / rope.factor
    blend = (rope.original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    return (1 - blend) * frequency / rope.factor + blend * frequency


def _yarn(rope: Rope, index: int, frequency: float) -> float:
    def pair_at(rotations: float) -> float:
        return rope.dim * math.log(rope.original / (rotations * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = pair_at(rope.beta_fast), pair_at(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.dim - 1)
    ramp = min(max((index - low) / max(high - low, 0.001), 0.0), 1.0)
    return frequency / rope.factor * ramp + frequency * (1 - ramp)
