"""System 93, From Medprompt to o1: what worked examples, chains and shuffled options gain, and what they cost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import permutations
from random import Random
from statistics import fmean

import numpy as np

from headrace.engine.engine import Engine
from headrace.evidence.answered import Answered
from headrace.evidence.asking import Asked, ask, gain, share, signed
from headrace.evidence.frontier import dominated, frontier
from headrace.evidence.scripted import END, scripted_engine
from headrace.evidence.stage import Stage
from headrace.evidence.systems import system
from headrace.evidence.verdict import NOT_IN_QUICK, judged, left_open, mutant_run
from headrace.reason.answers import Choice
from headrace.reason.choices import LETTERS, Options, Order, orders
from headrace.reason.solve import Order as Ask
from headrace.reason.solve import solve
from headrace.reason.task import Task
from headrace.reason.tasks.arith import DIALS, Problem, problems
from headrace.reason.tasks.arith_task import task_of
from headrace.reason.tasks.fixtures import fixture
from headrace.reason.tasks.lettered import question
from headrace.reason.tasks.posed import Posed
from headrace.reason.worked import Embed, Examples, Worked
from headrace.reason.working import worked_out
from headrace.spec.claim import Claim, Clause, Evidence, Size
from headrace.spec.errors import HeadraceError
from headrace.spec.sampling import Sampling, Stop

ROW = system(93)
UNBIASED, TOGGLES, PARETO, FEW_SHOT = ROW.clauses
MODEL, ENCODER = "qwen2.5-coder-0.5b", "minilm-l6"
CHAIN_TRAINED = "lm-t-small"
POINT_1_PERCENT = 16.27
"""Of the chi-square distribution with three degrees of freedom."""

BASE = "medprompt(few_shot=False, n=4, chain=False, shuffle=False)"
WAYS = {
    "none": BASE,
    "examples": "medprompt(examples=3, n=4, chain=False, shuffle=False)",
    "chain": "medprompt(few_shot=False, n=4, shuffle=False)",
    "shuffle": "medprompt(few_shot=False, n=4, chain=False)",
    "all": "medprompt(examples=3, n=4)",
}
OTHERS = {"likeliest": "likeliest_choice", "one attempt": "medprompt(few_shot=False, n=1, shuffle=False)"}

Restore = Callable[[Options, str, Order], str | None]


@dataclass(frozen=True, slots=True)
class Sizes:
    """`samples` of the leaning model; `asked` and `training` questions of Q, `sums` of the chain-trained model."""

    samples: int
    asked: int
    training: int
    sums: int


SIZES: dict[Size, Sizes] = {"quick": Sizes(96, 0, 0, 0), "full": Sizes(960, 16, 15, 200)}


def run(size: Size) -> Evidence:
    sizes = SIZES[size]
    unbiased = without_bias(sizes.samples)
    null_run = mutant_run("Mutant: shuffled options whose letters are never led back", [without_bias(48, as_shown)])
    numbers: dict[str, float | int | str | list[float]] = {"samples": sizes.samples}
    toggles, pareto, interval = left_open(TOGGLES, NOT_IN_QUICK), left_open(PARETO, NOT_IN_QUICK), None
    if sizes.asked:
        toggles, pareto, interval, more = measured(sizes)
        numbers |= more
    shown = few_shot_effect(sizes.sums) if sizes.sums else left_open(FEW_SHOT, NOT_IN_QUICK)
    return Evidence(CLAIM.id, (unbiased, toggles, pareto, shown), null_run, numbers, interval, "", size)


# -- exactly without bias --------------------------------------------------------------------------

PLACES = (Fraction(7, 10), Fraction(1, 10), Fraction(1, 10), Fraction(1, 10))
"""How much the planted model leans to each place."""
TASTES = ((1, 1, 1, 1), (4, 1, 1, 2), (1, 9, 3, 3))
"""How much it likes each option for what it says."""


def led_back(asked: Options, letter: str, order: Order) -> str | None:
    return asked.unshuffled(letter, order)


def as_shown(asked: Options, letter: str, order: Order) -> str | None:
    return letter


def without_bias(samples: int, restore: Restore = led_back) -> Clause:
    """Enumerated over all orders for models that lean; then the strategy itself on one that does nothing else."""
    moved = max(_moved(taste, restore) for taste in TASTES)
    leaning = max(_moved(taste, restore, shuffled=False) for taste in TASTES)
    even = _answers(TASTES[0], (0, 1, 2, 3), restore)
    uniform = all(chance == Fraction(1, len(PLACES)) for chance in even)
    plain, mixed = (_chi_square(_sampled(samples, shuffle)) for shuffle in (False, True))
    holds = not moved and uniform and mixed < POINT_1_PERCENT < plain
    figure = (
        f"over all {len(list(permutations(PLACES)))} orders an option's chance moves by {moved} with the place it is "
        f"presented at (unshuffled: {leaning}); chi-square of {samples} answers of a model that only leans: "
        f"{plain:.0f} plain, {mixed:.1f} shuffled (0.1 % point {POINT_1_PERCENT})"
    )
    return judged(UNBIASED, holds, figure)


def _moved(taste: Sequence[int], restore: Restore, shuffled: bool = True) -> Fraction:
    """The most that an option's chance differs between presentations of the same options in different orders."""
    chances: dict[int, list[Fraction]] = {option: [] for option in range(len(PLACES))}
    for presented in permutations(range(len(PLACES))):
        tastes = [taste[option] for option in presented]
        found = _answers(tastes, presented, restore, shuffled)
        for place, option in enumerate(presented):
            chances[option].append(found[place])
    return max(max(values) - min(values) for values in chances.values())


def _answers(taste: Sequence[int], presented: Sequence[int], restore: Restore, shuffled: bool = True) -> list[Fraction]:
    """The chance of each presented letter, exactly, when every order is as likely."""
    asked = Options("?", tuple(map(str, presented)))
    count = len(PLACES)
    ways = orders(count, len(list(permutations(PLACES))), Random(0)) if shuffled else [tuple(range(count))]
    found = [Fraction(0)] * count
    for order in ways:
        pulls = [PLACES[place] * taste[option] for place, option in enumerate(order)]
        for place, pull in enumerate(pulls):
            letter = restore(asked, LETTERS[place], order)
            assert letter is not None
            found[LETTERS.index(letter)] += pull / sum(pulls) / len(ways)
    return found


def _sampled(samples: int, shuffle: bool) -> Counter[str | None]:
    asked = Options("Which?", ("kiwi", "lime", "fig", "date"))

    def chances(text: str) -> Mapping[str, float]:
        tail = text.rpartition("nothing else.\n\n")[2]
        return {END: 1.0} if tail else {letter: float(pull) for letter, pull in zip("ABCD", PLACES, strict=True)}

    task = Task(asked.text(), Choice(asked.letters), ending=Stop(tokens=4), chat=False, meta={"choices": asked})
    how = f"medprompt(few_shot=False, n={samples}, chain=False, shuffle={shuffle})"
    with scripted_engine(chances, pages=40 * samples) as engine:
        found = asyncio.run(solve(engine, task, Ask(how, seed=1, sampling=Sampling(temperature=1.0))))
    return Counter(candidate.answer for candidate in found.candidates)


def _chi_square(counts: Counter[str | None]) -> float:
    even = sum(counts.values()) / len(PLACES)
    return sum((counts[letter] - even) ** 2 / even for letter in LETTERS[: len(PLACES)])


# -- toggles and frontier on a real model ----------------------------------------------------------


def measured(
    sizes: Sizes,
) -> tuple[Clause, Clause, tuple[float, float] | None, dict[str, float | int | str | list[float]]]:
    """Each toggle alone and all of them, against the same four attempts without any."""
    try:
        embed, close = encoder()
        with (
            Answered.of(ROW.id) as answered,
            Stage.named(MODEL, 512, threads=1) as stage,
            stage.engine(prefix_cache=True) as engine,
        ):
            examples = Examples(prepared(engine, sizes.training), embed)
            posed = [question(seed, lean=0.25, tokens=64, examples=examples) for seed in range(sizes.asked)]
            found = {name: ask(engine, posed, how, answered=answered) for name, how in (WAYS | OTHERS).items()}
        close()
    except HeadraceError as error:
        why = f"the models could not be loaded: {error}"
        return left_open(TOGGLES, why), left_open(PARETO, why), None, {}
    gains = {name: gain(found[name], found["none"]) for name in WAYS if name != "none"}
    told = "; ".join(f"{name} {signed(difference)}" for name, difference in gains.items())
    figure = f"{MODEL}, {sizes.asked} questions, {len(examples.items)} worked examples kept of {sizes.training}: {told}"
    numbers: dict[str, float | int | str | list[float]] = {"examples": len(examples.items)}
    numbers |= {f"{name} right": [float(asked.right) for asked in answers] for name, answers in found.items()}
    numbers |= {f"{name} places": _places(answers) for name, answers in found.items()}
    return judged(TOGGLES, True, figure, "effect"), table(found), gains["all"][1], numbers


def encoder() -> tuple[Embed, Callable[[], None]]:
    """MiniLM's mean of the last hidden states, as unit vectors."""
    stage = Stage.named(ENCODER, 512, threads=1)
    engine = stage.engine()

    def embed(texts: Sequence[str]) -> np.ndarray:
        handles = [engine.open_now(text) for text in texts]
        # Waits in the thread that asks: strategies call this from inside their event loop.
        found = [answer.result() for answer in [handle.read("hidden:-1", "mean") for handle in handles]]
        for handle in handles:
            handle.drop()
        vectors = np.stack(found)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def close() -> None:
        engine.close()
        stage.close()

    return embed, close


def prepared(engine: Engine, count: int) -> list[Worked]:
    """What the model works out of training questions, which no measured question is among."""
    training: list[Posed] = [question(10_000 + seed, tokens=64) for seed in range(count)]
    order = Ask(seed=0, sampling=Sampling(temperature=0))
    return asyncio.run(worked_out(engine, training, order))


def table(found: Mapping[str, Sequence[Asked]]) -> Clause:
    """A table of all ways with their cost; which of them others dominate."""
    points = {
        name: (fmean(asked.tokens for asked in answers), fmean(asked.right for asked in answers))
        for name, answers in found.items()
    }
    beaten = dominated(points)
    rows = [
        f"{name} {share(answers)}" + (f", dominated by {beaten[name]}" if name in beaten else "")
        for name, answers in found.items()
    ]
    return judged(PARETO, frontier(points) == points.keys() - beaten.keys(), "; ".join(rows), "effect")


def _places(answers: Sequence[Asked]) -> list[float]:
    """How often each letter was the answer; last, how often none was read."""
    return [float(sum(asked.answer == letter for asked in answers)) for letter in (*"ABCD", None)]


# -- examples for a model that was trained on chains -----------------------------------------------


def few_shot_effect(count: int, shots: int = 2) -> Clause:
    """Sums at the model's dial, with and without shorter worked ones before them; greedy, paired by question."""
    steps, largest = DIALS["sums"]
    examples = problems("sums", steps // 2, shots, split="train")
    before = "".join(f"{item.question}{chr(10).join(item.lines)}\n" for item in examples)
    asked = problems("sums", steps, count, largest=largest)
    try:
        with Stage.named(str(fixture(CHAIN_TRAINED)), 256, threads=1) as stage, stage.engine() as engine:
            plain, shown = (ask(engine, [_sum(item, head) for item in asked], "single", 0) for head in ("", before))
    except HeadraceError as error:
        return left_open(FEW_SHOT, f"{CHAIN_TRAINED} could not be had: {error}")
    figure = (
        f"{CHAIN_TRAINED}, {count} sums of {steps} steps: without examples {share(plain)}, "
        f"behind {shots} worked ones {share(shown)}; difference {signed(gain(shown, plain))}; "
        "its training had one question a text"
    )
    return judged(FEW_SHOT, True, figure, "effect")


def _sum(problem: Problem, before: str) -> Posed:
    task = task_of(problem)
    return Posed(replace(task, question=before + task.question), str(problem.answer), problem.family)


CLAIM = Claim(
    ROW.id,
    ROW.number,
    "Shuffling options takes position bias away exactly; every toggle's gain stands beside its price.",
    "Four attempts at the same questions without examples, chains or shuffled options.",
    ("exact", "effect"),
    "Generated questions with four options, a quarter of them with the right one planted at the first place.",
    run,
)
