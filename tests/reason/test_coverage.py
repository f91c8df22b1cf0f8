"""P4: planted success rates are found again; intervals cover what they should, and extrapolation says so."""

from __future__ import annotations

import math

import numpy as np
import pytest

from headrace.reason.coverage import Samples, beta_coverage, coverage, fit_beta, fit_power_law, forecast
from headrace.spec.errors import InvalidRequest

ALPHA, BETA = 0.25, 1.2
SEEN, BEYOND = 32, 256


def planted(seed: int, questions: int, drawn: int = SEEN) -> Samples:
    rng = np.random.default_rng(seed)
    correct = rng.binomial(drawn, rng.beta(ALPHA, BETA, questions))
    return Samples(tuple(correct.tolist()), (drawn,) * questions)


def test_measured_coverage_is_the_mean_of_unbiased_estimates() -> None:
    samples = Samples.of([[True, False, False], [False] * 3])
    found = coverage(samples, [1, 2, 3])
    assert [one.value for one in found] == pytest.approx([1 / 6, 1 / 3, 1 / 2])
    assert all(one.interval[0] <= one.value <= one.interval[1] and not one.warning for one in found)
    with pytest.raises(InvalidRequest, match="more samples"):
        coverage(samples, [4])
    with pytest.raises(InvalidRequest, match="power-law or beta"):
        forecast(samples, [4], "gamma")  # type: ignore[arg-type]


def test_the_beta_integral_in_closed_form() -> None:
    x = (np.arange(200_000) + 0.5) / 200_000
    mass = x**1.5 * (1 - x) ** 3.0
    for k in (1, 7, 64):
        assert beta_coverage(2.5, 4.0, k) == pytest.approx(1 - float(mass @ (1 - x) ** k / mass.sum()), rel=1e-4)
    assert beta_coverage(2.0, 3.0, 1) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("alpha", "beta", "questions", "n"),
    [(0.25, 1.2, 300, 40), (2, 5, 50, 16), (50, 50, 60, 16), (0.1, 9, 80, 64), (9, 0.3, 40, 5)],
)
def test_the_beta_fit_is_the_likeliest(alpha: float, beta: float, questions: int, n: int) -> None:
    rng = np.random.default_rng(1)
    correct = rng.binomial(n, rng.beta(alpha, beta, questions))
    a, b = (float(one[0]) for one in fit_beta(correct, np.full(questions, n), np.ones((1, questions))))

    def likelihood(a: float, b: float) -> float:
        def term(c: int) -> float:
            return math.lgamma(a + c) + math.lgamma(b + n - c) - math.lgamma(a + b + n)

        return sum(map(term, correct)) + questions * (math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b))

    around = [likelihood(a * u, b * v) for u in (0.7, 0.97, 1, 1.03, 1.4) for v in (0.7, 0.97, 1, 1.03, 1.4)]
    assert likelihood(a, b) >= max(around) - 1e-9


def test_the_power_law_fit_is_the_closest() -> None:
    ks = np.array([1.0, 2, 4, 8, 16])
    exact = np.exp(-1.7 * ks**-0.4)
    noisy = exact + np.array([0.01, -0.02, 0.015, 0.01, -0.01])
    level, slope = fit_power_law(ks, np.vstack([exact, noisy]))
    assert (math.exp(level[0]), slope[0]) == (pytest.approx(1.7), pytest.approx(-0.4))

    def error(a: float, b: float) -> float:
        return float(((np.exp(-a * ks**b) - noisy) ** 2).sum())

    a, b = math.exp(level[1]), float(slope[1])
    assert error(a, b) <= min(
        error(a * u, b * v) for u in (0.9, 0.999, 1, 1.001, 1.1) for v in (0.9, 0.999, 1.001, 1.1)
    )


@pytest.mark.parametrize("form", ["power-law", "beta"])
def test_extrapolation_carries_an_interval_and_a_warning(form: str) -> None:
    near, far = forecast(planted(0, 300), [SEEN, BEYOND], form, resamples=100)
    assert not near.warning and far.warning.startswith("Extrapolated from 32 samples to k=256")
    assert near.interval[0] < near.value < near.interval[1]
    assert far.interval[1] - far.interval[0] > 0.02
    assert forecast(planted(0, 300), [BEYOND], form, resamples=100)[0] == far


@pytest.mark.parametrize("form", ["power-law", "beta"])
@pytest.mark.parametrize("flags", [[[False] * 8] * 5, [[True] * 8] * 5, [[True, False] * 4] * 5])
def test_no_spread_between_questions_is_no_trouble(form: str, flags: list[list[bool]]) -> None:
    for one in forecast(Samples.of(flags), [1, 8, 1000], form, resamples=20):
        assert 0 <= one.interval[0] <= one.interval[1] <= 1 and 0 <= one.value <= 1
    solved = forecast(Samples.of(flags), [8], form, resamples=20)[0].value
    assert solved == pytest.approx(float(any(flags[0])), abs=0.02)


def check_planted(replications: int, questions: int, resamples: int) -> dict[str, float]:
    """How often the intervals hold the truth; measured at k within the samples, fitted there and beyond."""
    ks, hits = (1, 4, 16, SEEN), dict.fromkeys(("measured", "beta", "beta beyond", "power law beyond"), 0.0)
    bias = np.zeros(len(ks))
    truth = {k: beta_coverage(ALPHA, BETA, k) for k in (*ks, BEYOND)}
    for seed in range(replications):
        samples = planted(seed, questions)
        measured = coverage(samples, ks, seed, resamples)
        found = {
            "measured": measured,
            "beta": forecast(samples, ks, "beta", seed, resamples),
            "beta beyond": forecast(samples, [BEYOND], "beta", seed, resamples),
            "power law beyond": forecast(samples, [BEYOND], "power-law", seed, resamples),
        }
        for name, ones in found.items():
            hits[name] += sum(one.interval[0] <= truth[one.k] <= one.interval[1] for one in ones) / len(ones)
        bias += [one.value - truth[one.k] for one in measured]
    rates = {name: count / replications for name, count in hits.items()}
    return rates | {"largest bias of pass@k": float(np.abs(bias).max()) / replications}


def test_intervals_cover_the_planted_rates() -> None:
    found = check_planted(40, 100, 200)
    assert min(found["measured"], found["beta"], found["beta beyond"]) > 0.85
    assert found["largest bias of pass@k"] < 0.02


@pytest.mark.prove
def test_intervals_cover_the_planted_rates_full(figures: dict) -> None:
    """The power law is not the truth here; how rarely its interval holds is what its warning is for."""
    found = check_planted(500, 200, 500)
    figures.update(found)
    assert min(found["measured"], found["beta"], found["beta beyond"]) >= 0.93
    assert found["largest bias of pass@k"] < 0.005
