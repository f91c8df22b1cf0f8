"""System 48, ProcBench: tasks that spell out their procedure, checked at every step."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from headrace.engine.engine import Engine
from headrace.evidence import procbench
from headrace.evidence.procbench import FAMILIES, Family, Score, Task
from headrace.evidence.stage import FULL_MODEL, Stage
from headrace.evidence.systems import system
from headrace.evidence.verdict import judged, left_open, mutant_run
from headrace.reason.intervals import bootstrap
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


@dataclass(frozen=True, slots=True)
class Sizes:
    """`lengths` and `seeds` of the exact clauses; `asked` and `each` of the curve: lengths, tasks a family."""

    lengths: tuple[int, ...]
    seeds: int
    asked: tuple[int, ...]
    each: int
    families: int


SIZES: dict[Size, Sizes] = {
    "quick": Sizes((1, 2, 5, 13), 3, (1, 4), 1, 6),
    "full": Sizes((1, 2, 3, 5, 8, 13, 21, 34, 64), 20, (1, 2, 4, 8), 2, len(FAMILIES)),
}


def run(size: Size) -> Evidence:
    sizes = SIZES[size]
    exact, numbers = check_exact(sizes.lengths, sizes.seeds)
    slipping, _ = check_exact(sizes.lengths[:2], 1, slip=1)
    curve, interval = left_open(SMOL, "not asked"), None
    try:
        with Stage.named(FULL_MODEL, 512, threads=2) as stage, stage.engine(prefix_cache=True) as engine:
            curve, interval, more = _judge(ask(engine, sizes))
        numbers |= more
    except HeadraceError as error:
        curve = left_open(SMOL, f"the model could not be loaded: {error}")
    later = [
        left_open(Q, "no model of that class is in the catalogue yet"),
        left_open(TRAINED, "nothing is trained here yet; it comes with adapt"),
    ]
    null_run = mutant_run("Mutant: an oracle that is off by one at its first step", slipping)
    return Evidence(CLAIM.id, (*exact, curve, *later), null_run, numbers, interval, "", size)


def check_exact(
    lengths: Sequence[int], seeds: int, slip: int | None = None
) -> tuple[list[Clause], dict[str, float | int | str | list[float]]]:
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


@dataclass(slots=True)
class Curve:
    """Scores by length."""

    model: str
    scores: dict[int, list[Score]] = field(default_factory=dict)


def ask(engine: Engine, sizes: Sizes) -> Curve:
    """Greedy answers of the engine's model to tasks of every length, after one solved example."""
    families = list(FAMILIES.values())[:: max(len(FAMILIES) // sizes.families, 1)][: sizes.families]
    tasks = _tasks(families, sizes.asked, sizes.each)

    async def everything() -> list[Score]:
        return await asyncio.gather(*(_ask_one(engine, task) for task in tasks))

    curve = Curve(engine.model_name)
    for task, marks in zip(tasks, asyncio.run(everything()), strict=True):
        curve.scores.setdefault(task.length, []).append(marks)
    return curve


async def _ask_one(engine: Engine, task: Task) -> Score:
    example = procbench.make_task(FAMILIES[task.family], task.length, EXAMPLE_SEED)
    # Half as much again as the right answer takes: enough for it, and for a wrong one to show.
    room = len(engine.encode(procbench.answer(task.gold))) * 3 // 2 + 8
    async with await engine.open(procbench.conversation(task, example), seed=0) as sequence:
        step = await sequence.extend(Stop(tokens=room), Sampling(temperature=0))
    return procbench.grade(task, step.text)


def _judge(curve: Curve) -> tuple[Clause, tuple[float, float], dict[str, float | int | str | list[float]]]:
    """The curve falls when the shortest tasks' prefix accuracy exceeds the longest ones', interval above 0."""
    accuracy = {length: [marks.prefix_accuracy for marks in scores] for length, scores in curve.scores.items()}
    short, long = accuracy[min(accuracy)], accuracy[max(accuracy)]
    # The same families and seeds stand at every length, so tasks are compared in pairs.
    interval = bootstrap([one - other for one, other in zip(short, long, strict=True)])
    shown = []
    for length, values in accuracy.items():
        low, high = bootstrap(values)
        whole = fmean(marks.sequential_match for marks in curve.scores[length])
        shown.append(f"{length}: {fmean(values):.3f} [{low:.3f}, {high:.3f}] ({100 * whole:.0f} % whole)")
    fall = f"falls by {fmean(short) - fmean(long):.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
    figure = f"prefix accuracy by length {'; '.join(shown)}; {fall}; {len(short)} tasks a length, one example each"
    numbers: dict[str, float | int | str | list[float]] = {
        "lengths": [float(length) for length in accuracy],
        "prefix_accuracy": [fmean(values) for values in accuracy.values()],
    }
    return judged(SMOL, interval[0] > 0, figure, "effect"), interval, numbers


CLAIM = Claim(
    ROW.id,
    ROW.number,
    "Procedures with known states tell how far a model follows them; SmolLM2's accuracy falls with length.",
    "The oracle interpreter, which scores 100 %.",
    ("exact", "effect"),
    "About 8 minutes on 2 busy cores for a full run; greedy answers after one solved example.",
    run,
)
