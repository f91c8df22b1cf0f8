"""System 64, particle filtering: attempts weighed by a noisy reward and resampled, against searches for the best."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import NormalDist, fmean, stdev

import numpy as np

from headrace.engine.engine import Engine
from headrace.evidence import finite
from headrace.evidence.asking import signed
from headrace.evidence.claims.denotational_validation import check_smc, particle_filter
from headrace.evidence.finite import Policy, total_variation
from headrace.evidence.scripted import adder, scripted_stage
from headrace.evidence.sharing import Meter, Separate
from headrace.evidence.stage import Stage
from headrace.evidence.systems import system
from headrace.evidence.verdict import NOT_IN_QUICK, both, every_mutant, judged, left_open
from headrace.reason.blocks import Block, Measure
from headrace.reason.blocks import run as run_blocks
from headrace.reason.choice import Seeded
from headrace.reason.evaluate import oracle_scorer
from headrace.reason.evaluation.filling import How, Job, fill
from headrace.reason.evaluation.store import Store, budget_key
from headrace.reason.intervals import Interval, bootstrap, paired_bootstrap
from headrace.reason.solve import Order, solve
from headrace.reason.tasks.fixtures import fixture
from headrace.reason.tasks.item import Item
from headrace.reason.tasks.registry import items
from headrace.spec.budget import Budget
from headrace.spec.claim import Claim, Clause, Evidence, Size
from headrace.spec.errors import HeadraceError
from headrace.spec.sampling import Sampling

ROW = system(64)
EXACT, BEATS, SHARE = ROW.clauses
MODEL, TASK = "lm-t-small", "arith:sums(steps=6, largest=10)"
NOISES = (1.0, 2.0, 4.0, 8.0)
"""Deviation of the noise on a step's logit, which is 2 where all steps are right and -2 where one is wrong."""
OURS, PRODUCT = "smc(n=8)", "smc(n=8, target='product')"
ALWAYS, NEVER = "smc(n=8, threshold=1)", "smc(n=8, threshold=0)"
"""Resampled wherever weights differ, and nowhere."""
RIVALS = {"beam": "step_beam(width=8, expand=4)", "best of n": "best_of_n(n=8)"}
OTHERS = {"dvts": "dvts(width=8, expand=4)", "weighted vote": "weighted_vote(n=8)", "product target": PRODUCT}
VOTE = "self_consistency(n=8)"
BUDGET = Budget(tokens=512)
"""Every run's; eight whole attempts fit."""
HOW = How(sampling=Sampling(temperature=0.8))
PARTICLES = (4, 16, 64)

Numbers = dict[str, float | int | str | list[float]]
Table = dict[str, np.ndarray]
"""By strategy: 1 where the answer was right, else 0, float [questions, noises]."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """`particles` in all for each N, `policies` in rationals; `questions` of the table, of which `shared` for pages."""

    particles: int
    policies: tuple[tuple[int, int, int], ...]
    questions: int
    shared: int


SIZES: dict[Size, Sizes] = {
    "quick": Sizes(1_200, ((3, 3, 2),), 0, 0),
    "full": Sizes(8_000, ((3, 3, 2), (3, 2, 3)), 150, 10),
}


def run(size: Size) -> Evidence:
    sizes = SIZES[size]
    exact, numbers = unbiased(sizes.particles, sizes.policies)
    wrong, _ = unbiased(1_200, (), lambda block: finite.WRONG[0] if block.name == "resample" else block)
    with scripted_stage(adder(0.3)) as stage:
        share, _ = shares(stage, items(TASK, 3))
        apart, _ = shares(stage, items(TASK, 1), Separate)
    what = "Mutants: a filter whose offspring keep their parents' weights; forks that share no pages"
    null_run = every_mutant(what, [wrong, apart])
    effect, interval = left_open(BEATS, NOT_IN_QUICK), None
    if sizes.questions:
        effect, share, interval, more = _on_the_model(share, sizes)
        numbers |= more
    return Evidence(CLAIM.id, (exact, effect, share), null_run, numbers, interval, "", size)


# -- on a policy whose every sequence is enumerated ------------------------------------------------


def unbiased(
    particles: int,
    policies: Sequence[tuple[int, int, int]],
    change: Callable[[Block], Block] = lambda block: block,
) -> tuple[Clause, Numbers]:
    """The expected measure in rationals, then the estimates of single runs for N = 4, 16, 64."""
    assembled = check_smc(policies, change)
    scores, numbers, nearer = list[float](), Numbers(), True
    policy = Policy(4, 4, float)
    for target in ("outcome", "product"):
        exact = Policy(4, 4).target(target)
        blocks = tuple(map(change, particle_filter(policy, target)))
        found = [_estimates(policy, blocks, exact, n, particles // n) for n in PARTICLES]
        scores += [score for score, _ in found]
        distances = [distance for _, distance in found]
        nearer = nearer and all(far > near for far, near in pairwise(distances))
        numbers |= {f"{target}: z": [s for s, _ in found], f"{target}: distance": distances}
    worst = max(scores, key=abs)
    told = "; ".join(f"{t} {', '.join(f'{d:.3f}' for d in numbers[f'{t}: distance'])}" for t in ("outcome", "product"))  # type: ignore[union-attr]
    figure = (
        f"{assembled.figure}; estimates of the evidence at N = {', '.join(map(str, PARTICLES))} are at most "
        f"{abs(worst):.1f} standard errors off; distance of one run's posterior: {told}"
    )
    return judged(EXACT, assembled.status == "passed" and abs(worst) < 4 and nearer, figure), numbers


def _estimates(policy: Policy, blocks: tuple[Block, ...], exact: Measure, n: int, runs: int) -> tuple[float, float]:
    """The z-score of the mean estimate of the evidence, and the mean distance of a posterior from the exact one."""
    evidence, distances = [], []
    for seed in range(runs):
        population = run_blocks(blocks, policy.start(n), Seeded(f"{n} {seed}"))
        found: Measure = {}
        for particle, weight in zip(population.particles, population.weights, strict=True):
            found[particle.now] = found.get(particle.now, 0) + weight
        evidence.append(population.total)
        distances.append(total_variation(found, exact))
    error = stdev(evidence) / math.sqrt(runs)
    return (fmean(evidence) - float(sum(exact.values()))) / error, fmean(distances)


# -- against searches, on a model that was trained here --------------------------------------------


def table(engine: Engine, asked: Sequence[Item], noises: Sequence[float] = NOISES) -> tuple[Table, Numbers]:
    """Every strategy at every noise, on the same questions and seeds; and the mean tokens that each drew."""
    ways = {"particles": OURS, **RIVALS, **OTHERS}
    right: dict[str, list[list[float]]] = {name: [] for name in ways}
    tokens: dict[str, list[float]] = {name: [] for name in ways}
    for noise in noises:
        how = replace(HOW, scorer=oracle_scorer(asked, noise))
        for name, strategy in ways.items():
            won, cost = _asked(engine, asked, strategy, how)
            right[name].append(won)
            tokens[name].append(cost)
    won, cost = _asked(engine, asked, VOTE, HOW)
    found: Table = {name: np.array(rows).T for name, rows in right.items()}
    found["vote"] = np.array([won] * len(noises)).T
    return found, {f"tokens, {name}": fmean(costs) for name, costs in {**tokens, "vote": [cost]}.items()}


def _asked(engine: Engine, asked: Sequence[Item], strategy: str, how: How) -> tuple[list[float], float]:
    store, jobs = Store(None, {}), [Job(item, strategy, BUDGET, 0, how.scorer) for item in asked]
    asyncio.run(fill(engine, jobs, store, how))
    found = [store.samples[job.key] for job in jobs]
    assert {one.budget for one in found} == {budget_key(BUDGET)}
    return [float(one.kind == "right") for one in found], fmean(one.tokens for one in found)


def beats(found: Table, numbers: Numbers) -> tuple[Clause, Interval]:
    """Over all noises the mean gain on each rival, and how much less accuracy a doubled noise costs."""
    gains, slopes = _against(found, "particles", [name for name in found if name != "particles"])
    holds = all(gains[name][1][0] > 0 and slopes[name][1][0] > 0 for name in RIVALS)
    rates = "; ".join(f"{name} {', '.join(f'{v:.3f}' for v in rows.mean(0))}" for name, rows in found.items())
    costs = [float(numbers[f"tokens, {name}"]) for name in ("particles", *RIVALS)]  # type: ignore[arg-type]
    figure = (
        f"oracle runs of {MODEL} on {TASK}, {len(found['vote'])} questions, {min(costs):.0f} to {max(costs):.0f} "
        f"tokens drawn, noise (AUC) {', '.join(f'{noise:g} ({_auc(noise):.2f})' for noise in NOISES)}. "
        f"Right: {rates}. Particles for the outcome target, which decide, {_told(gains, slopes)}. Particles for the "
        f"product target {_told(*_against(found, 'product target', [*RIVALS, 'vote']))}. Slopes: accuracy a doubling"
    )
    for name, rows in found.items():
        numbers |= {f"right, {name}": [float(v) for v in rows.mean(0)], f"slope, {name}": float(_slopes(rows).mean())}
    return judged(BEATS, holds, figure, "effect"), min(gains[name][1] for name in RIVALS)


Differences = dict[str, tuple[float, Interval]]


def _against(found: Table, ours: str, rivals: Sequence[str]) -> tuple[Differences, Differences]:
    """By rival: the differences of accuracy, and of slope."""
    gains = {name: _paired(found[ours].mean(1), found[name].mean(1)) for name in rivals}
    return gains, {name: _paired(_slopes(found[ours]), _slopes(found[name])) for name in rivals}


def _told(gains: Differences, slopes: Differences) -> str:
    return "; ".join(
        f"over {name} {signed(gain)} {_verdict(gain, 'beats', 'worse')}, slope {signed(slopes[name])} "
        f"{_verdict(slopes[name], 'degrades less', 'degrades more')}"
        for name, gain in gains.items()
    )


def _paired(one: np.ndarray, other: np.ndarray) -> tuple[float, Interval]:
    return paired_bootstrap(one.tolist(), other.tolist())


def _slopes(right: np.ndarray) -> np.ndarray:
    """Each question's least-squares change of accuracy when the noise doubles."""
    apart = np.log2(NOISES) - np.log2(NOISES).mean()
    return right @ apart / (apart @ apart)


def _auc(noise: float) -> float:
    """The chance that a right text outscores a wrong one: their logits are 4 apart, each with its own noise."""
    return NormalDist().cdf(4 / (noise * math.sqrt(2)))


def _verdict(difference: tuple[float, Interval], above: str, below: str) -> str:
    low, high = difference[1]
    return above if low > 0 else below if high < 0 else "no difference shown"


# -- pages -----------------------------------------------------------------------------------------


def shares(stage: Stage, asked: Sequence[Item], kind: type[Engine] = Engine) -> tuple[Clause, Numbers]:
    """Runs one by one, by forks and by separate sequences, with and without resampling: the engine's peak of pages."""
    runs = [_paged(stage, item, place, ALWAYS, kind) for place, item in enumerate(asked)]
    never = [_paged(stage, item, place, NEVER, kind) for place, item in enumerate(asked)]
    ratio, idle = ([one.pages / one.apart for one in paged] for paged in (runs, never))
    (low, high), more = bootstrap(ratio), paired_bootstrap(idle, ratio)
    differ, resampled = sum(one.differs for one in (*runs, *never)), sum(one.resampled for one in runs)
    held, apart, copies = (sum(getattr(one, name) for one in runs) for name in ("pages", "apart", "copies"))
    figure = (
        f"{stage.name}: at their peaks {len(asked)} runs with {resampled} resamplings hold {held} pages, separate "
        f"sequences {apart}: {fmean(ratio):.2f} [{low:.2f}, {high:.2f}] of them a run, and {fmean(idle):.2f} without "
        f"resampling, {signed(more)} more; {copies} pages copied on write; {differ} of {2 * len(asked)} runs say "
        "something else apart"
    )
    numbers: Numbers = {"pages ratio": ratio, "pages ratio without resampling": idle}
    return judged(SHARE, high < 1 and more[1][0] > 0 and not differ and resampled > 0, figure), numbers


@dataclass(frozen=True, slots=True)
class _Paged:
    """One run's peak of pages by forks and `apart`, its pages copied on write, and whether it said the same twice."""

    pages: int
    apart: int
    copies: int
    resampled: int
    differs: bool


def _paged(stage: Stage, item: Item, seed: int, strategy: str, kind: type[Engine]) -> _Paged:
    order = Order(strategy, BUDGET, oracle_scorer([item], NOISES[1]), seed, HOW.sampling)
    meters, found = (Meter(), Meter()), []
    ways: tuple[type[Engine], ...] = (kind, Separate)
    for meter, way in zip(meters, ways, strict=True):
        with meter.engine(stage, way) as engine:
            found.append(asyncio.run(solve(engine, item.task, order)))
            engine.check()
    texts = [[candidate.text for candidate in result.candidates] for result in found]
    resampled = sum(1 for _ in found[0].trace.of("resampled"))
    return _Paged(meters[0].pages, meters[1].pages, meters[0].copies, resampled, texts[0] != texts[1])


def _on_the_model(share: Clause, sizes: Sizes) -> tuple[Clause, Clause, Interval | None, Numbers]:
    asked = items(TASK, sizes.questions)
    try:
        stage = Stage.named(str(fixture(MODEL)), 512, threads=1)
        stage.name = MODEL
    except HeadraceError as error:
        return left_open(BEATS, f"{MODEL} is not there: {error}"), share, None, {}
    with stage:
        pages, numbers = shares(stage, asked[: sizes.shared])
        with stage.engine(prefix_cache=True) as engine:
            found, costs = table(engine, asked)
    effect, interval = beats(found, costs)
    return effect, both(pages, share), interval, numbers | costs


CLAIM = Claim(
    ROW.id,
    ROW.number,
    "Particles weighed by a reward sample its posterior without bias and are told from searches for its maximum.",
    "Step beam and best-of-N at the same width and tokens, scored by the same noisy checker of every step.",
    ("exact", "effect"),
    "Oracle runs: the scorer knows the right steps and is made to err. Eight attempts, at most 512 tokens. Pages are"
    " counted at a threshold of 1: a first run at the default one resampled 5 times in 12 runs, too rarely to tell."
    " The product target joined after that run, whose 200 questions showed the outcome target worse than beam.",
    run,
)
