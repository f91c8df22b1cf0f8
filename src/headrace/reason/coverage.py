"""How the share of solved questions grows with the number of samples, and where it would go from there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from headrace.reason.intervals import RESAMPLES, Interval, bootstrap_weights, percentiles
from headrace.reason.statistics import pass_at_k
from headrace.spec.errors import InvalidRequest

Form: TypeAlias = Literal["power-law", "beta"]
STEPS, LARGEST_STEP = 60, 1.0
LOG_BOUND = 12.0
"""|log| of a fitted parameter: without spread between questions the likelihood rises for ever."""


@dataclass(frozen=True, slots=True)
class Samples:
    """For each question the number of samples and of correct ones among them."""

    correct: tuple[int, ...]
    drawn: tuple[int, ...]

    @staticmethod
    def of(flags: Sequence[Sequence[bool]]) -> Samples:
        return Samples(tuple(sum(row) for row in flags), tuple(len(row) for row in flags))

    def pass_at(self, ks: Sequence[int]) -> np.ndarray:
        """Unbiased pass@k: float [questions, ks]. Raises InvalidRequest for a k that some question lacks."""
        pairs = list(zip(self.correct, self.drawn, strict=True))
        values = {pair: [pass_at_k(pair[1], pair[0], k) for k in ks] for pair in set(pairs)}
        return np.array([values[pair] for pair in pairs], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Coverage:
    """The estimated share of questions that k samples solve, its 95 % interval, and a warning if extrapolated."""

    k: int
    value: float
    interval: Interval
    warning: str = ""


def coverage(samples: Samples, ks: Sequence[int], seed: int = 0, resamples: int = RESAMPLES) -> list[Coverage]:
    """Measured: the mean of unbiased pass@k, with intervals by resampling questions."""
    values = samples.pass_at(ks)
    means = bootstrap_weights(len(values), resamples, seed) @ values / len(values)
    return [Coverage(k, float(values[:, j].mean()), percentiles(means[:, j])) for j, k in enumerate(ks)]


def forecast(
    samples: Samples, ks: Sequence[int], form: Form = "beta", seed: int = 0, resamples: int = 500
) -> list[Coverage]:
    """Fitted: the curve at any k, also beyond the samples, with intervals by resampling questions.

    `power-law` fits exp(a k^b), a < 0 and b < 0 (Brown et al. 2024); `beta` fits a beta distribution to the
    questions' success rates and integrates 1 - E(1 - p)^k over it (Schaeffer et al. 2025). Raises
    InvalidRequest for another form.
    """
    curves_of = {"power-law": _power_law_curves, "beta": _beta_curves}
    if form not in curves_of:
        raise InvalidRequest(f"There is no form {form!r}; choose {' or '.join(curves_of)}.", "form")
    drawn = bootstrap_weights(len(samples.drawn), resamples, seed)
    weights = np.vstack([np.ones(len(samples.drawn)), drawn])
    curves = curves_of[form](samples, weights, np.asarray(ks, float))
    most = min(samples.drawn)
    return [
        Coverage(k, float(curves[0, j]), percentiles(curves[1:, j]), _warning(k, most, form)) for j, k in enumerate(ks)
    ]


def _warning(k: int, most: int, form: Form) -> str:
    if k <= most:
        return ""
    assumed = "the power law holds" if form == "power-law" else "success rates follow a beta distribution"
    return f"Extrapolated from {most} samples to k={k}: the interval is right only if {assumed}; draw more to know."


def _power_law_curves(samples: Samples, weights: np.ndarray, ks: np.ndarray) -> np.ndarray:
    """Coverage [resamples, ks] of power laws that are fitted at powers of two, each resample by itself."""
    seen = [2**power for power in range(min(samples.drawn).bit_length())]
    if len(seen) < 2:
        raise InvalidRequest("A power law needs two samples a question; draw more.", "samples")
    means = weights @ samples.pass_at(seen) / weights.sum(axis=1, keepdims=True)
    level, slope = fit_power_law(np.asarray(seen, float), means)
    return np.exp(-np.exp(level[:, None] + slope[:, None] * np.log(ks)))


def fit_power_law(ks: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least squares for exp(a k^b): log(-a) and b, each [rows], from ks [points] and coverage [rows, points].

    Gauss-Newton on y = log(-log coverage), which is linear in log k; steps are bounded.
    """
    x, clipped = np.log(ks), np.clip(values, 1e-6, 1 - 1e-6)
    level, slope = _line(x, np.log(-np.log(clipped)), np.ones_like(values))
    slope = np.minimum(slope, -1e-9)
    for _ in range(STEPS):
        y = np.clip(level[:, None] + slope[:, None] * x, -LOG_BOUND, 3.0)
        model = np.exp(-np.exp(y))
        steep = -model * np.exp(y)
        up, along = _line(x, (values - model) / steep, steep**2)
        level = np.clip(level + np.clip(up, -LARGEST_STEP, LARGEST_STEP), -LOG_BOUND, LOG_BOUND)
        slope = np.clip(slope + np.clip(along, -LARGEST_STEP, LARGEST_STEP), -LOG_BOUND, -1e-9)
    return level, slope


def _line(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted least squares of a line through y [rows, points]: intercepts and slopes."""
    whole = weights.sum(axis=1)
    mean_x, mean_y = weights @ x / whole, (weights * y).sum(axis=1) / whole
    apart = x - mean_x[:, None]
    spread = (weights * apart**2).sum(axis=1)
    slope = (weights * apart * y).sum(axis=1) / np.maximum(spread, 1e-300)
    return mean_y - slope * mean_x, slope


def _beta_curves(samples: Samples, weights: np.ndarray, ks: np.ndarray) -> np.ndarray:
    """Coverage [resamples, ks] of beta-binomial fits."""
    correct, drawn = np.asarray(samples.correct), np.asarray(samples.drawn)
    alpha, beta = fit_beta(correct, drawn, weights)
    return np.array([[beta_coverage(a, b, k) for k in ks] for a, b in zip(alpha, beta, strict=True)])


def beta_coverage(alpha: float, beta: float, k: float) -> float:
    """1 - E(1 - p)^k for p from Beta(alpha, beta): the integral in closed form."""
    gone = math.lgamma(beta + k) - math.lgamma(beta) + math.lgamma(alpha + beta) - math.lgamma(alpha + beta + k)
    return -math.expm1(gone)


def fit_beta(correct: np.ndarray, drawn: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maximum likelihood of the beta-binomial: alpha and beta, each [rows], with weights [rows, questions].

    The likelihood is a sum of log(alpha + j), log(beta + j) and -log(alpha + beta + j) over counts of questions.
    Damped Newton in the logarithms of both: a row takes a step only when its likelihood rises.
    """
    j = np.arange(int(drawn.max()))
    good, bad, all_ = (weights @ (counts[:, None] > j) for counts in (correct, drawn - correct, drawn))
    likelihood = _Likelihood(j, (good, bad, -all_))
    mean = (weights @ correct) / (weights @ drawn)
    place, damping = np.log(np.clip([mean, 1 - mean], 1e-5, 1)), np.ones(len(weights))
    value = likelihood.at(place)
    for _ in range(STEPS):
        tried = np.clip(place + likelihood.step(place, damping), -LOG_BOUND, LOG_BOUND)
        found = likelihood.at(tried)
        rises = found >= value
        place, value = np.where(rises, tried, place), np.where(rises, found, value)
        damping = np.clip(np.where(rises, damping / 8, damping * 8), 1e-9, 1e9)
    return np.exp(place[0]), np.exp(place[1])


@dataclass(frozen=True, slots=True)
class _Likelihood:
    """Of a beta-binomial in x = (log alpha, log beta), [2, rows]; counts [rows, j] for alpha, beta and their sum."""

    j: np.ndarray
    counts: tuple[np.ndarray, np.ndarray, np.ndarray]

    def at(self, x: np.ndarray) -> np.ndarray:
        alpha, beta = np.exp(x)
        bases = (alpha, beta, alpha + beta)
        return sum((n * np.log(b[:, None] + self.j)).sum(axis=1) for b, n in zip(bases, self.counts, strict=True))

    def step(self, x: np.ndarray, damping: np.ndarray) -> np.ndarray:
        """Newton's step towards the maximum, shortened by `damping`; at most LARGEST_STEP in each direction."""
        alpha, beta = np.exp(x)
        shifted = [1 / (base[:, None] + self.j) for base in (alpha, beta, alpha + beta)]
        first = [(n * r).sum(axis=1) for n, r in zip(self.counts, shifted, strict=True)]
        second = [-(n * r**2).sum(axis=1) for n, r in zip(self.counts, shifted, strict=True)]
        rise_a, rise_b = alpha * (first[0] + first[2]), beta * (first[1] + first[2])
        bend_a, bend_b = -(alpha**2) * (second[0] + second[2]) - rise_a, -(beta**2) * (second[1] + second[2]) - rise_b
        cross = -alpha * beta * second[2]
        lowest = (bend_a + bend_b) / 2 - np.hypot((bend_a - bend_b) / 2, cross)
        shift = np.maximum(-lowest, 0) + damping * (np.abs(bend_a) + np.abs(bend_b)) + 1e-9
        bend_a, bend_b = bend_a + shift, bend_b + shift
        whole = bend_a * bend_b - cross**2
        steps = np.array([bend_b * rise_a - cross * rise_b, bend_a * rise_b - cross * rise_a]) / whole
        return np.clip(steps, -LARGEST_STEP, LARGEST_STEP)
