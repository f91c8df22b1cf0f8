"""System 67, Large Language Monkeys: what repeated samples cover, and what a verifier makes of that."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from random import Random
from statistics import fmean

import numpy as np

from headrace.engine.engine import Engine
from headrace.engine.surface import Prompt
from headrace.evidence.registry import project_root
from headrace.evidence.sharing import Meter, Separate
from headrace.evidence.stage import Stage
from headrace.evidence.systems import system
from headrace.evidence.verdict import NOT_IN_QUICK, every_mutant, judged, left_open
from headrace.reason.coverage import Coverage, Form, Samples, coverage, forecast
from headrace.reason.evaluation.pooled import orders_of
from headrace.reason.intervals import Interval, bootstrap
from headrace.reason.statistics import pass_at_k
from headrace.reason.tasks.fixtures import fixture
from headrace.reason.tasks.programs import SHOWN, Puzzle, puzzles, values_of
from headrace.reason.votes import vote
from headrace.spec.claim import Claim, Clause, Evidence, Size
from headrace.spec.errors import HeadraceError
from headrace.spec.sampling import Sampling, Stop

ROW = system(67)
BRUTE, FORECAST, PLATEAU, SHARED = ROW.clauses
MODEL, OPERATORS = "programmer", 3
SEEN, AHEAD = 64, 256
FORMS: tuple[Form, Form] = ("beta", "power-law")
"""The first is the one that `forecast` takes by itself, and the one that decides the clause."""
KS = (16, 64, 256)
FLAT = 0.05
"""A vote that gains no more than this from 16 samples to 256, with its whole interval, is on a plateau."""
FORKS = (1, 4, 16, 64)
END = Stop(tokens=48)

Numbers = dict[str, float | int | str | list[float]]


@dataclass(frozen=True, slots=True)
class Sizes:
    """`n`: the largest that brute force enumerates. `prompts` for the counters; `questions` have `drawn` samples."""

    n: int
    prompts: int
    questions: int
    drawn: int


SIZES: dict[Size, Sizes] = {"quick": Sizes(7, 3, 0, 0), "full": Sizes(12, 4, 100, 320)}


def run(size: Size) -> Evidence:
    sizes, rng = SIZES[size], Random(0)
    with Stage.tiny(pages=1024) as tiny:
        drawn = [[rng.randrange(3, tiny.vocab) for _ in range(rng.randint(5, 90))] for _ in range(sizes.prompts)]
        shared, _ = counted(tiny, drawn)
        apart, _ = counted(tiny, drawn[:1], Separate)
    what = "Mutants: 1 - (1 - c/n)^k for pass@k; forks that share no pages"
    null_run = every_mutant(what, [brute(sizes.n, plug_in), apart])
    effects, interval, numbers = [left_open(text, NOT_IN_QUICK) for text in (FORECAST, PLATEAU)], None, Numbers()
    if sizes.questions:
        shared, effects, interval, numbers = _on_the_model(shared, sizes)
    return Evidence(CLAIM.id, (brute(sizes.n), *effects, shared), null_run, numbers, interval, "", size)


# -- pass@k ----------------------------------------------------------------------------------------


def brute(most: int, estimate: Callable[[int, int, int], float] = pass_at_k) -> Clause:
    """Every n up to `most`, c and k: against the share of all choices of k that have a right sample."""
    wrong = cases = 0
    for n in range(1, most + 1):
        for c in range(n + 1):
            for k in range(1, n + 1):
                chosen = [any(place < c for place in places) for places in combinations(range(n), k)]
                wrong += abs(estimate(n, c, k) - Fraction(sum(chosen), len(chosen))) > 1e-12
                cases += 1
    return judged(BRUTE, not wrong, f"{wrong} of {cases} triples (n, c, k) with n up to {most} differ by over 1e-12")


def plug_in(n: int, correct: int, k: int) -> float:
    return 1 - (1 - correct / n) ** k


# -- samples of one prompt -------------------------------------------------------------------------


async def samples(engine: Engine, prompt: Prompt, count: int, seed: int, stop: Stop = END) -> list[str | list[int]]:
    """`count` forks of one prompt at temperature 1, each to its end: their texts, token ids without a tokenizer."""
    async with await engine.open(prompt, seed=seed) as root:
        await root.extend(Stop(tokens=0))
        kids = root.fork(count)
        steps = await engine.extend_many(kids, stop, Sampling(temperature=1.0))
        for kid in kids:
            kid.drop()
    return [step.text if engine.tokenizer else step.token_ids for step in steps]


def counted(stage: Stage, prompts: Sequence[Prompt], kind: type[Engine] = Engine) -> tuple[Clause, Numbers]:
    """Prompt tokens that N samples compute, by the engine's counters, against P + N: each reads the last one again."""
    wrong, numbers = 0, Numbers()
    for count in FORKS:
        costs, pages, seconds = [], [], []
        for place, prompt in enumerate(prompts):
            meter = Meter()
            with meter.engine(stage, kind) as engine:
                length, began = len(engine.encode(prompt)), time.perf_counter()
                asyncio.run(samples(engine, prompt, count, place))
                seconds.append((time.perf_counter() - began) / count)
            wrong += meter.prefill != length + count
            costs.append(meter.prefill / count)
            pages.append(meter.pages / count)
        numbers |= {f"prefill a sample, N={count}": fmean(costs), f"pages a sample, N={count}": fmean(pages)}
        numbers[f"seconds a sample, N={count}"] = fmean(seconds)
    told = [float(numbers[f"prefill a sample, N={count}"]) for count in FORKS]  # type: ignore[arg-type]
    figure = (
        f"{stage.name}: {' to '.join(f'{cost:.1f}' for cost in told)} prompt tokens a sample at N = "
        f"{', '.join(map(str, FORKS))}; {wrong} of {len(FORKS) * len(prompts)} counters are not P + N"
    )
    return judged(SHARED, not wrong and told == sorted(told, reverse=True) and told[-1] < told[0], figure), numbers


# -- what the samples say --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pool:
    """For each question its puzzle and its samples, in the order of drawing."""

    puzzles: Sequence[Puzzle]
    texts: Sequence[Sequence[str]]

    def right(self) -> list[list[bool]]:
        return [[puzzle.passes(text) for text in texts] for puzzle, texts in zip(self.puzzles, self.texts, strict=True)]


def draw_pool(engine: Engine, asked: Sequence[Puzzle], count: int) -> Pool:
    async def everything() -> list[list[str]]:
        return [list(map(str, await samples(engine, p.question, count, n))) for n, p in enumerate(asked)]

    return Pool(asked, asyncio.run(everything()))


def forecast_clause(pool: Pool) -> tuple[Clause, Numbers]:
    """Fits on the first SEEN samples of each question, and what the others come to at AHEAD."""
    right = pool.right()
    seen, rest = Samples.of([row[:SEEN] for row in right]), Samples.of([row[SEEN:] for row in right])
    ks = [k for k in (1, 4, 16, 64, 256) if k <= AHEAD]
    rising = coverage(rest, ks)
    truth = rising[-1].value
    rise = bootstrap(rest.pass_at([AHEAD])[:, 0] - rest.pass_at([1])[:, 0])
    fits = {form: forecast(seen, [AHEAD], form)[0] for form in FORMS}
    curve = ", ".join(f"{one.value:.3f}" for one in rising)
    told = "; ".join(
        f"{form} {_told(fit)} {'holds' if _holds(fit, truth) else 'misses'} it" for form, fit in fits.items()
    )
    figure = (
        f"{len(right)} questions: coverage {curve} at k = {', '.join(map(str, ks))}, at {AHEAD} {_told(rising[-1])}, "
        f"from {len(right[0]) - SEEN} samples that no fit saw; fits on {SEEN} others: {told}. "
        f"The {FORMS[0]} decides{_proved()}"
    )
    numbers: Numbers = {f"coverage at {one.k}": one.value for one in rising}
    for form, fit in fits.items():
        numbers |= {f"{form} at {AHEAD}": fit.value, f"{form} interval": list(fit.interval)}
    return judged(FORECAST, rise[0] > 0 and _holds(fits[FORMS[0]], truth), figure, "effect"), numbers


def _proved() -> str:
    """How often the intervals of both fits held a planted truth beyond the samples, as the proof of them found."""
    path = project_root() / "results" / "prove" / "coverage.json"
    if not path.is_file():
        return ""
    (rates,) = json.loads(path.read_text(encoding="utf-8"))["figures"].values()
    return (
        f": in proof P4 its interval held a planted truth {rates['beta beyond']:.1%} of the time, the power law's "
        f"{rates['power law beyond']:.1%}"
    )


def _holds(fit: Coverage, truth: float) -> bool:
    return fit.interval[0] <= truth <= fit.interval[1]


def _told(fit: Coverage) -> str:
    return f"{fit.value:.3f} [{fit.interval[0]:.3f}, {fit.interval[1]:.3f}]"


def plateau_clause(pool: Pool) -> tuple[Clause, Interval, Numbers]:
    """Right answers by vote on what programs do, by all tests, and by the shown tests alone, from k samples."""
    ways = {"vote": _voted, "verifier": _verified, "shown tests": _shown}
    shares = {name: np.array([way(pool, place) for place in range(len(pool.texts))]) for name, way in ways.items()}
    gains = {name: values[:, -1] - values[:, 0] for name, values in shares.items()}
    flat, apart = bootstrap(gains["vote"]), bootstrap(gains["verifier"] - gains["vote"])
    told = "; ".join(f"{name} {', '.join(f'{v:.3f}' for v in values.mean(0))}" for name, values in shares.items())
    more = "; ".join(
        f"{name} gains {values.mean():+.3f} [{low:+.3f}, {high:+.3f}]"
        for name, values in gains.items()
        for low, high in (bootstrap(values),)
    )
    figure = (
        f"right at k = {', '.join(map(str, KS))}: {told}; from {KS[0]} to {KS[-1]} {more}; the verifier gains "
        f"{np.mean(gains['verifier'] - gains['vote']):+.3f} [{apart[0]:+.3f}, {apart[1]:+.3f}] more than the vote, "
        f"whose plateau is a gain of at most {FLAT}"
    )
    numbers: Numbers = {name: [float(v) for v in values.mean(0)] for name, values in shares.items()}
    return judged(PLATEAU, flat[1] <= FLAT and apart[0] > 0, figure, "effect"), apart, numbers


def _verified(pool: Pool, place: int) -> list[float]:
    """Unbiased coverage: an exact verifier picks a right sample wherever there is one."""
    right = [pool.puzzles[place].passes(text) for text in pool.texts[place]]
    return [pass_at_k(len(right), sum(right), k) for k in KS]


def _voted(pool: Pool, place: int) -> list[float]:
    """Programs that do the same are one answer; texts that are no program cast no vote. Over random orders."""
    keys, truth = [values_of(text) for text in pool.texts[place]], pool.puzzles[place].values

    def won(order: np.ndarray, k: int) -> bool:
        cast = [key for sample in order[:k] if (key := keys[sample]) is not None]
        return bool(cast) and vote(cast).answer == truth

    orders = orders_of(len(keys), place)
    return [fmean(won(order, k) for order in orders) for k in KS]


def _shown(pool: Pool, place: int) -> list[float]:
    """The first sample that passes the tests that the question shows, whatever the hidden ones say."""
    puzzle, texts = pool.puzzles[place], pool.texts[place]
    passing = {text: puzzle.passes(text, SHOWN) for text in set(texts)}

    def won(order: np.ndarray, k: int) -> bool:
        chosen = next((texts[sample] for sample in order[:k] if passing[texts[sample]]), None)
        return chosen is not None and puzzle.passes(chosen)

    orders = orders_of(len(texts), place)
    return [fmean(won(order, k) for order in orders) for k in KS]


# -- on the trained model --------------------------------------------------------------------------


def _on_the_model(shared: Clause, sizes: Sizes) -> tuple[Clause, list[Clause], Interval | None, Numbers]:
    asked = puzzles(OPERATORS, sizes.questions)
    try:
        stage = Stage.named(str(fixture(MODEL)), 512, threads=1)
        stage.name = MODEL
    except HeadraceError as error:
        return shared, [left_open(text, f"{MODEL} is not there: {error}") for text in (FORECAST, PLATEAU)], None, {}
    with stage:
        real, numbers = counted(stage, [puzzle.question for puzzle in asked[: sizes.prompts]])
        with stage.engine() as engine:
            pool = draw_pool(engine, asked, sizes.drawn)
    predicted, more = forecast_clause(pool)
    flat, interval, rest = plateau_clause(pool)
    numbers |= {"questions": len(asked), "samples a question": sizes.drawn} | more | rest
    times = ", ".join(f"{1000 * float(numbers[f'seconds a sample, N={n}']):.1f}" for n in FORKS)  # type: ignore[arg-type]
    holds = shared.status == real.status == "passed"
    both = f"{real.figure}; {shared.figure}; beside it {times} ms a sample, on a machine with other work"
    return judged(SHARED, holds, both), [predicted, flat], interval, numbers


CLAIM = Claim(
    ROW.id,
    ROW.number,
    "Coverage grows with the number of samples, can be forecast, and pays where answers can be checked.",
    "Majority vote over the same samples; separate requests for the same prompt.",
    ("exact", "effect"),
    f"A model trained here on programs of 1 to 4 operators; functions of {OPERATORS} operators that it never saw.",
    run,
)
