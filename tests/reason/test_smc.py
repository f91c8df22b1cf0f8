"""P3: on an enumerable policy both targets are met without bias; the filter of other libraries meets neither."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise
from statistics import fmean, stdev
from typing import Any

import pytest

from headrace.evidence.finite import END, Policy, keeps_weights, only_now, total_variation
from headrace.reason.blocks import Block, Measure, expand, expected, law, move, resample, reweight, run, thin
from headrace.reason.choice import Seeded, distribution
from headrace.reason.population import Population
from headrace.reason.resample import METHODS, Method
from headrace.reason.smc import Progress, Target, factor, smc

TARGETS: tuple[Target, ...] = ("outcome", "product")
SIZES = (4, 16, 64)


def filter_of(policy: Policy, target: Target, method: Method = "systematic", **more: Any) -> tuple[Block, ...]:
    return smc(policy.extend, policy.finished, policy.score, policy.longest, target, method, **more)


def exact_measure(policy: Policy, blocks: tuple[Block, ...], n: int) -> Measure:
    return only_now(expected(blocks, {policy.start(n): Fraction(1)}))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [1, 2])
def test_the_expected_measure_is_the_target_exactly(method: Method, target: Target, n: int) -> None:
    policy = Policy(3, 3)
    filtered = exact_measure(policy, filter_of(policy, target, method, threshold=Fraction(3, 4)), n)
    assert filtered == policy.target(target)
    assert only_now(law(filter_of(policy, target), {Progress((), ()): Fraction(1)})) == policy.target(target)


@pytest.mark.parametrize("target", TARGETS)
def test_three_particles_that_always_resample(target: Target) -> None:
    policy = Policy(3, 2)
    assert exact_measure(policy, filter_of(policy, target, "residual", threshold=2), 3) == policy.target(target)


@pytest.mark.parametrize("target", TARGETS)
def test_steering_keeps_the_target(target: Target) -> None:
    """Two children a particle, of which at most two are kept without replacement, in place of resampling."""
    policy = Policy(3, 2)
    step, weigh, _ = filter_of(policy, target)[:3]
    stages = (expand(2), step, weigh, thin(2)) * policy.longest
    assert exact_measure(policy, stages, 1) == policy.target(target)


@pytest.mark.prove
@pytest.mark.parametrize("target", TARGETS)
def test_five_tokens_exactly(target: Target, figures: dict) -> None:
    policy = Policy(4, 5)
    found = exact_measure(policy, filter_of(policy, target), 2)
    figures[target] = {"sequences": len(found), "evidence": str(sum(found.values()))}
    assert found == policy.target(target)


def test_resampling_matters_to_these_tests() -> None:
    """Some run has an ESS below the threshold, or nothing above had been shown about resampling."""
    policy = Policy(3, 3)
    wrong = [b if b.name != "resample" else Block("wrong", keeps_weights, dict) for b in filter_of(policy, "outcome")]
    assert exact_measure(policy, tuple(wrong), 2) != policy.target("outcome")
    never = only_now(expected(filter_of(policy, "outcome", threshold=0), {policy.start(2): Fraction(1)}))
    assert never == policy.target("outcome")


def test_the_factors_of_a_path_telescope() -> None:
    scores = [Fraction(1), Fraction(1, 3), Fraction(4, 5), Fraction(1, 2)]
    steps = list(pairwise(scores))
    assert math.prod(factor("outcome", *step) for step in steps) == Fraction(1, 2)
    assert math.prod(factor("product", *step) for step in steps) == Fraction(4, 30)


@pytest.mark.parametrize("target", TARGETS)
def test_a_finished_particle_keeps_its_weight(target: Target) -> None:
    policy = Policy(3, 4)
    done, open_ = (1, END), (1, 2)
    start = Population((Progress((1,), done), Progress((1,), open_)), (Fraction(1, 3), Fraction(2, 3)))
    after = run(filter_of(policy, target, threshold=0)[:3], start, Seeded(0))
    assert after.particles[0] == Progress(done, done) and after.weights[0] == Fraction(1, 3)
    assert after.weights[1] != Fraction(2, 3)


def estimates(policy: Policy, target: Target, n: int, runs: int) -> tuple[float, float]:
    """The z-score of the mean estimate of Z, and the mean distance of one run's posterior from the exact one."""
    exact, blocks = policy.target(target), filter_of(policy, target)
    evidence, distances = [], []
    for seed in range(runs):
        population = run(blocks, policy.start(n), Seeded(f"{target} {n} {seed}"))
        evidence.append(population.total)
        distances.append(total_variation(measured(population), exact))
    return (fmean(evidence) - sum(exact.values())) / (stdev(evidence) / math.sqrt(runs)), fmean(distances)


def measured(*populations: Population[Progress]) -> Measure:
    found: Measure = {}
    for population in populations:
        for particle, weight in zip(population.particles, population.weights, strict=True):
            found[particle.now] = found.get(particle.now, 0) + weight
    return found


def check_estimates(policy: Policy, target: Target, particles: int) -> dict[str, list[float]]:
    scores, distances = zip(*(estimates(policy, target, n, particles // n) for n in SIZES), strict=True)
    assert all(abs(score) < 4 for score in scores)
    assert distances[0] > distances[1] > distances[2]
    return {"z": list(scores), "total_variation": list(distances)}


@pytest.mark.parametrize("target", TARGETS)
def test_evidence_is_unbiased_and_the_posterior_comes_closer(target: Target) -> None:
    check_estimates(Policy(4, 4, float), target, 2_000)


@pytest.mark.prove
@pytest.mark.parametrize("target", TARGETS)
def test_evidence_is_unbiased_full(target: Target, figures: dict) -> None:
    figures[target] = check_estimates(Policy(4, 5, float), target, 48_000)


def odds_filter(policy: Policy) -> tuple[Block, ...]:
    """Weights r / (1 - r) at every step, finished or not, and resampling each time (defect 3)."""

    def step(particle: Progress, choice: Any) -> Progress:
        now = particle.now
        return Progress((), now if policy.finished(now) else policy.extend(now, choice))

    def odds(particle: Progress) -> Any:
        return policy.score(particle.now) / (1 - policy.score(particle.now))

    return (move(step), reweight(odds), resample("multinomial", 2)) * policy.longest


def pooled(policy: Policy, n: int, particles: int) -> Measure:
    """What that filter returns on average: each run counts the same, for it carries no evidence along."""
    ends = [run(odds_filter(policy), policy.start(n), Seeded(f"{n} {seed}")) for seed in range(particles // n)]
    return measured(*(Population.even(population.particles, 1.0) for population in ends))


def test_the_odds_filter_drifts_away_from_both_targets() -> None:
    """Its limit is another distribution, and more particles bring it there: away from what it is said to be."""
    exact, policy = Policy(4, 4), Policy(4, 4, float)
    limit = only_now(law(odds_filter(exact), {Progress((), ()): Fraction(1)}))
    few, many = pooled(policy, 2, 3000), pooled(policy, 50, 3000)
    assert total_variation(many, limit) < total_variation(few, limit)
    for target in TARGETS:
        goal = exact.target(target)
        assert total_variation(limit, goal) > total_variation(many, goal) > total_variation(few, goal) + 0.1
    assert total_variation(limit, exact.target("outcome")) > total_variation(
        distribution(exact.whole), exact.target("outcome")
    ), "not weighing at all comes closer"
