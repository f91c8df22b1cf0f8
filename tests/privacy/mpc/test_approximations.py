"""The functions of secret shares in plain numbers: their bounds over the whole range, and PUMA's own exponential."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.privacy.mpc import approximations as a

WIDE = np.linspace(-60, 60, 100_001)


@pytest.mark.parametrize("name", ["silu", "gelu"])
def test_a_gate_stays_within_its_bound(name: str) -> None:
    kind = a.GATES[name]
    error = np.abs(a.gate(np, kind, WIDE) - a.activation(name, WIDE))
    assert error.max() <= kind.bound
    edge = np.abs(np.abs(WIDE) - kind.edge) < 1e-2
    assert error[edge].max() > 0, "the seam is where a piecewise function may tear"


def test_a_lower_degree_breaks_the_bound() -> None:
    """The bound is not slack: two degrees less exceed it."""
    silu = a.Gate(a.SILU.even, a.SILU.edge, a.SILU.degree - 2, a.SILU.bound)
    assert np.abs(a.gate(np, silu, WIDE) - a.activation("silu", WIDE)).max() > silu.bound


def test_the_exponential_stays_within_its_bound() -> None:
    x = np.linspace(-1000, 0, 1_000_001)
    error = np.abs(a.exp(np, x / 2**a.SQUARINGS) - np.exp(x))
    assert error.max() <= a.EXP_BOUND
    linear = (1 + np.maximum(x, a.LOWEST) / 2**a.SQUARINGS) ** (2**a.SQUARINGS)
    assert np.abs(linear - np.exp(x)).max() > 500 * a.EXP_BOUND, "PUMA's base of degree 1"


def test_a_gate_fits_the_ring() -> None:
    """No coefficient is large, and the usual one has more than two digits in fixed point."""
    for kind in a.GATES.values():
        found = np.abs(kind.coefficients())
        assert found.max() < 8 and np.median(found) > 2.0**-a.FRACTION_BITS * 100


def test_combine_is_a_weighted_sum() -> None:
    terms = [np.ones((2, 3)), 2 * np.ones((2, 3))]
    assert np.array_equal(a.combine(np, [1, -0.5], terms), np.zeros((2, 3)))
