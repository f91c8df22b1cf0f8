"""System 48, ProcBench: tasks that spell out their procedure, checked at every step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from headrace.engine.engine import Engine
from headrace.evidence import procbench
from headrace.evidence.procbench import FAMILIES, Curve, Family, Score, Task
from headrace.evidence.stage import FULL_MODEL, Stage
from headrace.evidence.systems import system
from headrace.evidence.verdict import NOT_IN_QUICK, judged, left_open, mutant_run
from headrace.reason.tasks import fixtures
from headrace.reason.tasks.arith import Problem, problems
from headrace.reason.tasks.arith_task import WHOLE
from headrace.spec.claim import Claim, Clause, Evidence, Size
from headrace.spec.errors import HeadraceError
from headrace.spec.sampling import Sampling, Stop

ROW = system(48)
GENERATED, ORACLE, MUTANTS, METRICS, SMOL, Q, TRAINED = ROW.clauses
HAND_WORKED: tuple[tuple[Sequence[str], Sequence[str], tuple[int, float, bool, bool]], ...] = (
    ("abc", "abc", (3, 1.0, True, True)),
    ("abcd", "axcd", (1, 0.25, False, True)),
    ("ab", "abc", (2, 2 / 3, False, False)),
    ("abcd", "ab", (2, 0.5, False, False)),
    ("ab", "", (0, 0.0, False, False)),
    ("abc", "xbc", (0, 0.0, False, True)),
)
EXAMPLE_SEED = 1_000_000
"""The solved example is as long as the task, or a small model would copy its number of steps."""
Q_MODEL = "qwen2.5-coder-0.5b"
FIXTURES = ("lm-t-small", "lm-t-large")
STEPS, LEARNED = (2, 3, 4, 6, 8, 12), 6
"""Lengths of the running sums, and the longest that the models of LM-T learned from."""

T = TypeVar("T")
Numbers = dict[str, float | int | str | list[float]]


@dataclass(frozen=True, slots=True)
class Sizes:
    """`lengths` and `seeds` of the exact clauses; of the curves `asked`, the lengths, and tasks a length:
    `smol` and `q` times the families, and `sums`.
    """

    lengths: tuple[int, ...]
    seeds: int
    asked: tuple[int, ...]
    families: int
    smol: int
    q: int
    sums: int


SIZES: dict[Size, Sizes] = {
    "quick": Sizes((1, 2, 5, 13), 3, (1, 4), 6, 1, 0, 12),
    "full": Sizes((1, 2, 3, 5, 8, 13, 21, 34, 64), 20, (1, 2, 4, 8), len(FAMILIES), 2, 1, 60),
}


def run(size: Size) -> Evidence:
    sizes = SIZES[size]
    exact, numbers = check_exact(sizes.lengths, sizes.seeds)
    slipping, _ = check_exact(sizes.lengths[:2], 1, slip=1)
    curves: dict[str, Curve] = {}
    smol = _curve(SMOL, lambda: _follow(FULL_MODEL, sizes, sizes.smol), curves)
    q = _curve(Q, lambda: _follow(Q_MODEL, sizes, sizes.q), curves) if sizes.q else left_open(Q, NOT_IN_QUICK)
    trained = sums_clause(size, sizes.sums, curves)
    for name, curve in curves.items():
        numbers |= {f"{name} {what}": values for what, values in _rows(curve).items()}
    interval = curves[FULL_MODEL].slope()[1] if FULL_MODEL in curves else None
    null_run = mutant_run("Mutant: an oracle that is off by one at its first step", slipping)
    return Evidence(CLAIM.id, (*exact, smol, q, trained), null_run, numbers, interval, "", size)


def _rows(curve: Curve) -> dict[str, list[float]]:
    lengths = [float(length) for length in curve.scores]
    return {"lengths": lengths, "prefix": curve.prefix(), "whole": curve.whole(), "last": curve.last()}


# -- generators, oracle, mutants, metrics ----------------------------------------------------------


def check_exact(lengths: Sequence[int], seeds: int, slip: int | None = None) -> tuple[list[Clause], Numbers]:
    """The clauses on generators, oracle, mutants and metrics; `slip` puts a mutant in the oracle's place."""
    tasks = _tasks(list(FAMILIES.values()), lengths, seeds)
    dialled = all(len(task.gold) == task.length for task in tasks)
    solved = sum(_answered(task, slip).sequential_match for task in tasks)
    tried, caught = _mutants(tasks)
    wrong = [pair for pair in HAND_WORKED if _as_tuple(procbench.score(*pair[:2])) != pair[2]]
    counts = f"{len(FAMILIES)} families, {len(tasks)} tasks"
    clauses = [
        judged(GENERATED, dialled and len(FAMILIES) >= 12, f"{counts}, {_span(lengths)}"),
        judged(ORACLE, solved == len(tasks), f"{100 * solved / len(tasks):g} % of {len(tasks)} tasks"),
        judged(MUTANTS, caught == tried, f"{caught} of {tried} mutants fail at exactly their step"),
        judged(METRICS, not wrong, f"{len(HAND_WORKED) - len(wrong)} of {len(HAND_WORKED)} cases agree"),
    ]
    return clauses, {"families": len(FAMILIES), "tasks": len(tasks), "mutants": tried}


def _tasks(families: Sequence[Family], lengths: Sequence[int], seeds: int) -> list[Task]:
    return [procbench.make_task(f, length, seed) for length in lengths for f in families for seed in range(seeds)]


def _answered(task: Task, slip: int | None = None) -> Score:
    return procbench.grade(task, procbench.answer(procbench.interpret(FAMILIES[task.family], task.given, slip)))


def _mutants(tasks: Sequence[Task]) -> tuple[int, int]:
    """Off-by-one at the first, a middle and the last step of every task; returns tried and caught."""
    tried = caught = 0
    for task in tasks:
        for step in {1, task.length // 2 + 1, task.length}:
            marks = _answered(task, step)
            tried += 1
            caught += marks.prefix_length == step - 1 and not marks.sequential_match
    return tried, caught


def _as_tuple(marks: Score) -> tuple[int, float, bool, bool]:
    return marks.prefix_length, marks.prefix_accuracy, marks.sequential_match, marks.final_match


def _span(lengths: Sequence[int]) -> str:
    return f"lengths {min(lengths)} to {max(lengths)}"


# -- curves ----------------------------------------------------------------------------------------


def _curve(text: str, ask: Callable[[], Curve], kept: dict[str, Curve]) -> Clause:
    try:
        curve = ask()
    except HeadraceError as error:
        return left_open(text, f"the model could not be loaded: {error}")
    kept[curve.model] = curve
    return falls(text, curve)


def falls(text: str, curve: Curve) -> Clause:
    """A curve falls when the slope of its prefix accuracy has its whole interval below 0."""
    slope, (low, high) = curve.slope()
    figure = f"{curve}; {slope:+.3f} [{low:+.3f}, {high:+.3f}] of prefix accuracy with each doubling"
    return judged(text, high < 0, figure, "effect")


def _follow(model: str, sizes: Sizes, each: int) -> Curve:
    families = list(FAMILIES.values())[:: max(len(FAMILIES) // sizes.families, 1)][: sizes.families]
    tasks = _tasks(families, sizes.asked, each)
    loaded = Stage.named(model, 512, threads=1, activations="int8" if model == Q_MODEL else "int16")
    with loaded as stage, stage.engine(prefix_cache=True) as engine:
        marks = together(_ask_one(engine, task) for task in tasks)
    scores: dict[int, list[Score]] = {}
    for task, mark in zip(tasks, marks, strict=True):
        scores.setdefault(task.length, []).append(mark)
    return Curve(model, scores)


def together(questions: Iterable[Awaitable[T]]) -> list[T]:
    async def everything() -> list[T]:
        return list(await asyncio.gather(*questions))

    return asyncio.run(everything())


async def _ask_one(engine: Engine, task: Task) -> Score:
    """Greedy, after one solved example."""
    example = procbench.make_task(FAMILIES[task.family], task.length, EXAMPLE_SEED)
    # Half as much again as the right answer takes: enough for it, and for a wrong one to show.
    room = len(engine.encode(procbench.answer(task.gold))) * 3 // 2 + 8
    async with await engine.open(procbench.conversation(task, example), seed=0) as sequence:
        step = await sequence.extend(Stop(tokens=room), Sampling(temperature=0))
    return procbench.grade(task, step.text)


def sums_clause(size: Size, count: int, kept: dict[str, Curve]) -> Clause:
    """LM-T on running sums. Judged: answers drawn at temperature 1 to sums as long as those that it learned from."""
    missing = [name for name in FIXTURES if size == "quick" and not fixtures.ready(name)]
    if missing:
        return left_open(TRAINED, f"{' and '.join(missing)} not trained on this machine; a full run trains them")
    figures, down = [], []
    for name in FIXTURES:
        try:
            drawn, greedy = follow_sums(name, count)
        except HeadraceError as error:
            return left_open(TRAINED, f"{name} could not be had: {error}")
        kept |= {f"{name} drawn": drawn, f"{name} greedy": greedy}
        slope, (low, high) = drawn.slope(LEARNED)
        best, (least, most) = greedy.slope(LEARNED)
        down.append(high < 0)
        figures.append(
            f"{drawn}; {slope:+.3f} [{low:+.3f}, {high:+.3f}] with each doubling up to {LEARNED} steps, the longest "
            f"that it learned from; greedy {best:+.3f} [{least:+.3f}, {most:+.3f}]"
        )
    return judged(TRAINED, all(down), "; ".join(figures), "effect")


def follow_sums(name: str, count: int) -> tuple[Curve, Curve]:
    """Drawn at temperature 1, and greedy, over sums of every length in STEPS."""
    asked = {steps: problems("sums", steps, count, largest=9) for steps in STEPS}
    with Stage.named(str(fixtures.fixture(name)), 512, threads=1) as stage, stage.engine(prefix_cache=True) as engine:
        drawn, greedy = (
            Curve(name, {steps: _sums(engine, found, temperature) for steps, found in asked.items()})
            for temperature in (1.0, 0.0)
        )
    return drawn, greedy


def _sums(engine: Engine, asked: Sequence[Problem], temperature: float) -> list[Score]:
    async def one(place: int, problem: Problem) -> Score:
        async with await engine.open(problem.question, seed=place) as sequence:
            step = await sequence.extend(Stop(tokens=WHOLE), Sampling(temperature=temperature))
        return procbench.score(problem.lines, step.text.split("\n"))

    return together(one(place, problem) for place, problem in enumerate(asked))


CLAIM = Claim(
    ROW.id,
    ROW.number,
    "Procedures with known states tell how far a model follows them; accuracy falls with their length.",
    "The oracle interpreter, which scores 100 %.",
    ("exact", "effect"),
    "Greedy answers after one solved example, Q with 8-bit activations; for LM-T running sums, drawn at temperature 1.",
    run,
)
