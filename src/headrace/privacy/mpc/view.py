"""What one party saw, and whether it tells anything: its shares and messages must look like noise, whatever the input.

A protocol is private when a simulator without the secrets can write a party's view that nobody tells from the real one.
For additive and replicated shares the simulator draws uniform bytes (ABY3: Mohassel and Rindal 2018, section 3). So two
things are tested: that the bytes are uniform, and that views of two different inputs come from one distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LIMIT = 5.0
"""Standard deviations that a sound view passes but once in millions of tests."""

LEAST_BYTES = 256 * 20


@dataclass(frozen=True, slots=True)
class View:
    """`shares`: bytes that a party was given; `messages`: those that the others sent it, in order of arrival."""

    rank: int
    shares: tuple[bytes, ...]
    messages: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """Standard deviations of chi-square over byte values, from what noise gives."""

    what: str
    bytes: int
    deviations: float

    @property
    def sound(self) -> bool:
        return self.bytes >= LEAST_BYTES and abs(self.deviations) < LIMIT


def counts(parts: Sequence[bytes]) -> np.ndarray:
    """How often each byte value occurs: int [256]."""
    return np.bincount(np.frombuffer(b"".join(parts), np.uint8), minlength=256)


def uniformity(what: str, parts: Sequence[bytes]) -> Finding:
    """Byte values against the uniform distribution."""
    seen = counts(parts)
    total = int(seen.sum())
    expected = total / 256
    square = float(((seen - expected) ** 2).sum() / expected) if total else 0.0
    return Finding(what, total, _deviations(square, 255))


def sameness(what: str, one: Sequence[bytes], other: Sequence[bytes]) -> Finding:
    """Byte values of two samples against one common distribution (two-sample chi-square)."""
    a, b = counts(one).astype(float), counts(other).astype(float)
    both, total = a + b, a.sum() + b.sum()
    used = both > 0
    if not a.sum() or not b.sum():
        return Finding(what, 0, 0.0)
    expected = both[used] * a.sum() / total
    square = ((a[used] - expected) ** 2 / expected).sum() + (
        (b[used] - (both[used] - expected)) ** 2 / (both[used] - expected)
    ).sum()
    return Finding(what, int(min(a.sum(), b.sum())), _deviations(float(square), int(used.sum()) - 1))


def _deviations(square: float, degrees: int) -> float:
    """A chi-square as standard deviations of a normal variable (Wilson and Hilferty 1931)."""
    if degrees < 1:
        return float("inf")
    spread = 2 / (9 * degrees)
    return float(((square / degrees) ** (1 / 3) - (1 - spread)) / spread**0.5)


def judge(one: View, other: View) -> list[Finding]:
    """Every test of a party's views of two different inputs."""
    party = f"party {one.rank}"
    return [
        uniformity(f"{party}'s shares", one.shares),
        uniformity(f"{party}'s messages", one.messages),
        sameness(f"{party}'s shares of two inputs", one.shares, other.shares),
        sameness(f"{party}'s messages of two inputs", one.messages, other.messages),
    ]
