"""A transformer's functions out of additions, multiplications and comparisons: what secret shares can do.

PUMA (Dong et al. 2023, arXiv 2307.12533) takes piecewise polynomials for GELU, (1 + x / 2^t)^(2^t) for the exponential
below zero, and its protocols for 1 / x and 1 / sqrt(x). The forms here are PUMA's, the coefficients are fitted here:
a Chebyshev series in |x| where a polynomial in x needs coefficients that fixed point cannot hold, and a base of
degree 3 where PUMA's of degree 1 is a thousand times less exact for two multiplications less.

Every function takes and gives arrays of one array library `xp`, numpy or jax.numpy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev

FRACTION_BITS = 20
"""Of numbers in the ring of 64 bits: steps of 1e-6, products below 2^22.

With PUMA's 18 the logits of a model of four layers were four times less exact.
"""

LOWEST = -14.0
"""Below it the exponential is taken as 0, which is wrong by less than a step."""

SQUARINGS, BASE_DEGREE = 5, 3
EXP_SCALE = 2.0**SQUARINGS
"""By which the exponential wants its argument divided."""


@dataclass(frozen=True, slots=True)
class Gate:
    """An activation x / 2 + even(|x|): a Chebyshev series of `degree` in |x| below `edge`, |x| / 2 above it.

    `bound`: the most it may differ from the function itself anywhere, in exact arithmetic.
    """

    even: Callable[[float], float]
    edge: float
    degree: int
    bound: float

    def coefficients(self) -> np.ndarray:
        """float64 [degree + 1]: of the Chebyshev polynomials in 2 |x| / edge - 1."""
        at = np.vectorize(lambda z: self.even(self.edge * (z + 1) / 2))
        return chebyshev.chebinterpolate(at, self.degree)


SILU = Gate(lambda x: x / 2 * math.tanh(x / 2), 10.0, 10, 5e-4)
GELU = Gate(lambda x: x / 2 * math.erf(x / math.sqrt(2)), 4.0, 8, 2e-4)
GATES = {"silu": SILU, "gelu": GELU}
EXP_BOUND = 1e-5
"""Of the exponential, absolute, over x <= 0, in exact arithmetic."""

ROUNDING_BOUND = 5e-4
"""What fixed point may add to it, and to a gate, absolute."""


@dataclass(frozen=True, slots=True)
class Inverse:
    """A protocol of SPU's. `bound`: relative, on shares, beyond INVERSE_ROUNDING, of arguments from `low` to `high`."""

    low: float
    high: float
    bound: float


RECIPROCAL = Inverse(1, 1024, 1e-4)
"""Two Goldschmidt steps square an error of at most 0.0858 twice. The range: softmax's sums over 1,024 keys."""

RSQRT = Inverse(2**-8, 2**14, 3e-4)
"""A polynomial of degree 4, before the step of Newton's. The range: sums of squares that calmed norms give."""

INVERSE_ROUNDING = 2 * 2.0**-FRACTION_BITS
"""Absolute: two steps of fixed point. The smaller an inverse, the more it is: of 1 / 1024 two thousandths."""


@dataclass(frozen=True, slots=True)
class Functions:
    """What a transformer needs beside matrices. `exp` takes what is not above 0, already divided by `exp_scale`."""

    exp: Callable[[Any], Any]
    exp_scale: float
    reciprocal: Callable[[Any], Any]
    rsqrt: Callable[[Any], Any]
    activation: Callable[[str, Any], Any]


def exact() -> Functions:
    """The functions themselves, on numpy arrays."""
    return Functions(np.exp, 1.0, lambda x: 1 / x, lambda x: 1 / np.sqrt(x), activation)


def approximate(xp: Any, rsqrt: Callable[[Any], Any] | None = None) -> Functions:
    """Their approximations; 1 / x and `rsqrt` are the array library's own, which SPU replaces by its protocols."""
    return Functions(
        lambda x: exp(xp, x),
        EXP_SCALE,
        lambda x: 1 / x,
        rsqrt or (lambda x: 1 / xp.sqrt(x)),
        lambda name, x: gate(xp, GATES[name], x),
    )


def activation(name: str, x: np.ndarray) -> np.ndarray:
    """SiLU or GELU (the one with erf) of an array, as a library computes it."""
    even = np.tanh(x / 2) if name == "silu" else np.vectorize(math.erf, otypes=[x.dtype])(x / math.sqrt(2))
    return x / 2 + x / 2 * even


def exp(xp: Any, y: Any) -> Any:
    """e^(32 y) for y <= 0: (1 + y + y^2 / 2 + y^3 / 6)^32, and 0 below LOWEST."""
    square = y * y
    base = y + combine(xp, [1 / 2, 1 / 6], [square, square * y]) + 1
    for _ in range(SQUARINGS):
        base = base * base
    return xp.where(y < LOWEST / EXP_SCALE, 0.0, base)


def gate(xp: Any, kind: Gate, x: Any) -> Any:
    """A gate's activation: two comparisons, two selections and its polynomial."""
    absolute = xp.where(x < 0, -x, x)
    z = absolute * (2 / kind.edge) - 1
    first, *rest = kind.coefficients()
    series = combine(xp, [0.5, *rest], [x, *polynomials(z, kind.degree)]) + first
    return xp.where(absolute < kind.edge, series, (x + absolute) * 0.5)


def polynomials(z: Any, degree: int) -> list[Any]:
    """The Chebyshev polynomials T_1 to T_degree of z, each one multiplication after those of half its degree."""
    found = [None, z]
    for order in range(2, degree + 1):
        half = order // 2
        product = found[half] * found[order - half]
        found.append(product + product - (1 if order % 2 == 0 else z))
    return found[1:]


def combine(xp: Any, coefficients: Sequence[float], terms: Sequence[Any]) -> Any:
    """Their weighted sum as one product with a public row: rounded once, whatever the number of terms."""
    row = np.asarray([coefficients], np.float32)
    # Stacked along the last axis and turned: SPU's compiler would take a plain stack apart again.
    stacked = xp.stack([term.reshape(-1) for term in terms], axis=-1).T
    return xp.matmul(row.astype(stacked.dtype), stacked).reshape(terms[0].shape)
