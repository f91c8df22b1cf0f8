"""System 81, ThinkSum: likelihoods asked in parallel, summed by probability outside the model."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from itertools import combinations
from random import Random
from statistics import fmean
from typing import Any

import numpy as np

from headrace.engine.engine import Engine
from headrace.evidence.answered import Answered
from headrace.evidence.asking import Asked, ask
from headrace.evidence.scripted import END, scripted_engine
from headrace.evidence.stage import CrossTalk, Stage, View
from headrace.evidence.systems import system
from headrace.evidence.verdict import NOT_IN_QUICK, judged, left_open, mutant_run
from headrace.reason.answers import Choice
from headrace.reason.choices import Options
from headrace.reason.intervals import paired_bootstrap, ratio_interval
from headrace.reason.solve import Order, solve
from headrace.reason.task import Task
from headrace.reason.tasks.posed import Posed
from headrace.reason.tasks.sets import FAMILIES, WORDINGS
from headrace.reason.thoughts import Contexts
from headrace.reason.worked import Examples, Worked
from headrace.spec.claim import Claim, Clause, Evidence, Size
from headrace.spec.errors import HeadraceError
from headrace.spec.sampling import Stop

ROW = system(81)
SAME, BEATS, VARIES = ROW.clauses
MODELS = ("smollm2-135m", "qwen2.5-coder-0.5b")
TOLERANCE, EXACT = 1e-4, 1e-6
DIRECT, OURS = "likeliest_choice", "thinksum"
BEHIND = "medprompt(examples=4, n=1, chain=False, shuffle=False)"
"""Direct prompting as well: the letter alone, behind worked questions, since some thoughts have worked clues too."""
APART = 10**6
"""Questions shown are so far from those asked."""

Gain = tuple[float, tuple[float, float]]
Found = dict[str, list[list[Asked]]]
"""By strategy: for every wording, the answers to the same questions."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """`contexts` of the equality check and `rounds` of its timing on SmolLM2; `each`: questions a family, a model."""

    contexts: int
    rounds: int
    each: int


SIZES: dict[Size, Sizes] = {"quick": Sizes(12, 0, 0), "full": Sizes(40, 6, 24)}


def run(size: Size) -> Evidence:
    sizes = SIZES[size]
    with Stage.tiny() as tiny:
        same, numbers = compared(tiny, sizes.contexts)
        heard, _ = compared(tiny, 6, Whisper)
    sums = summed()
    null_run = mutant_run("Mutants: rows that hear their neighbours; a mean of logs for a mixture", [heard])
    if summed(wrong=True).status != "failed":
        null_run = Clause(null_run.text, "failed", "the wrong sum went unnoticed")
    exact = judged(SAME, same.status == sums.status == "passed", f"{same.figure}; {sums.figure}")
    effects, interval = [left_open(text, NOT_IN_QUICK) for text in (BEATS, VARIES)], None
    if sizes.rounds:
        exact, effects, interval, more = _on_real_models(exact, sizes)
        numbers |= more
    elif exact.status == "passed":
        exact = left_open(SAME, f"{exact.figure}; its speed is {NOT_IN_QUICK}", "exact")
    return Evidence(CLAIM.id, (exact, *effects), null_run, numbers, interval, "", size)


# -- batched against sequential --------------------------------------------------------------------


def compared(
    stage: Stage, count: int, view: type[View] = View, rounds: int = 1
) -> tuple[Clause, dict[str, float | int | str | list[float]]]:
    """The same continuations behind shared contexts in one batch, and one after another in sequences of their own."""
    furthest, ratios, total = 0.0, list[float](), 0
    for number in range(rounds):
        rng = Random(number)
        asked = [_drawn(rng, stage.vocab) for _ in range(count)]
        total += sum(len(continuations) for _, continuations in asked)
        with stage.engine(view=view) as engine:
            began = time.process_time()  # on one thread; whatever else the machine does is in neither side
            batched = asyncio.run(_batched(engine, asked))
            middle = time.process_time()
        with stage.engine() as engine:
            after = time.process_time()
            alone = asyncio.run(_alone(engine, asked))
            ratios.append((time.process_time() - after) / (middle - began))
        furthest = max(furthest, *(abs(a - b) for a, b in zip(batched, alone, strict=True)))
    figure = f"furthest apart {furthest:.1e} of {total} continuations on {stage.name}"
    return judged(SAME, furthest <= TOLERANCE, figure), {"furthest": furthest, "speed_ratios": ratios}


def _drawn(rng: Random, vocab: int) -> tuple[list[int], list[list[int]]]:
    def tokens(low: int, high: int) -> list[int]:
        return [rng.randrange(3, vocab) for _ in range(rng.randint(low, high))]

    return tokens(20, 60), [tokens(1, 6) for _ in range(4)]


async def _batched(engine: Engine, asked: Sequence[tuple[list[int], list[list[int]]]]) -> list[float]:
    opened = [await engine.open(context) for context, _ in asked]
    await engine.extend_many(opened, Stop(tokens=0))  # every context once, before its continuations part
    waiting = [handle.score(continuations) for handle, (_, continuations) in zip(opened, asked, strict=True)]
    rows = [await answer for answer in waiting]
    for handle in opened:
        handle.drop()
    return [math.fsum(logprobs) for row in rows for logprobs in row]


async def _alone(engine: Engine, asked: Sequence[tuple[list[int], list[list[int]]]]) -> list[float]:
    sums = []
    for context, continuations in asked:
        for continuation in continuations:
            async with await engine.open(context) as handle:
                (logprobs,) = await handle.score([continuation])
                sums.append(math.fsum(logprobs))
    return sums


# -- sums on a model that can be enumerated --------------------------------------------------------

LAW = {
    "one ": (Fraction(1, 2), Fraction(1, 4), Fraction(1, 8), Fraction(1, 8)),
    "two ": (Fraction(1, 10), Fraction(6, 10), Fraction(2, 10), Fraction(1, 10)),
    "three ": (Fraction(1, 3), Fraction(1, 6), Fraction(1, 6), Fraction(1, 3)),
}
WORDS = Options("Which?", ("kiwi", "lime", "fig", "date"))


def summed(wrong: bool = False) -> Clause:
    """The mixture by the strategy against the law itself; `wrong`: against the mean of logs, which is no mixture."""

    def chances(text: str) -> dict[str, float]:
        law = next((law for context, law in LAW.items() if text.endswith(context)), None)
        if law is not None:
            return {word[0]: float(chance) for word, chance in zip(WORDS.options, law, strict=True)}
        rest = next((w[len(p) :] for w in WORDS.options for p in (w[:1], w[:2], w[:3]) if text.endswith(" " + p)), "")
        return {rest[0] if rest else END: 1.0}

    shares = []
    for contexts in (tuple(LAW), tuple(LAW)[::-1]):
        meta = {"choices": WORDS, "think": Contexts(contexts, WORDS.options)}
        task = Task(WORDS.text(), Choice(WORDS.letters), chat=False, meta=meta)
        with scripted_engine(chances) as engine:
            found = asyncio.run(solve(engine, task, Order(OURS, seed=0)))
        shares.append(next(found.trace.of("summed")).data["shares"])
    columns = list(zip(*LAW.values(), strict=True))
    exact = [float(sum(column) / len(LAW)) for column in columns]
    if wrong:
        exact = [math.exp(fmean(math.log(value) for value in column)) for column in columns]
    apart = max(abs(a - b / sum(exact)) for a, b in zip(shares[0], exact, strict=True))
    figure = f"a mixture over {len(LAW)} contexts is {apart:.1e} from exact enumeration, in either order"
    return judged(SAME, apart <= EXACT and shares[0] == shares[1], figure)


# -- effects ---------------------------------------------------------------------------------------


def _on_real_models(
    exact: Clause, sizes: Sizes
) -> tuple[Clause, list[Clause], tuple[float, float] | None, dict[str, float | int | str | list[float]]]:
    numbers: dict[str, float | int | str | list[float]] = {}
    gains, spreads, interval = {}, {}, None
    for name in MODELS:
        try:
            with Stage.named(name, 512, threads=1) as stage:
                if name == MODELS[0]:
                    real, more = compared(stage, 6, rounds=sizes.rounds)
                    exact = _faster(exact, real, more)
                    numbers["speed_ratios"] = more["speed_ratios"]
                with Answered.of(ROW.id) as answered, stage.engine(prefix_cache=True) as engine:
                    found = asked_all(engine, sizes.each, answered)
        except HeadraceError as error:
            why = f"{name} could not be loaded: {error}"
            return exact, [left_open(BEATS, why), left_open(VARIES, why)], None, numbers
        gains[name], spreads[name] = family_gains(found, sizes.each), disagreement_drop(found)
        interval = accuracy_gain(found, hardest(found))[1]
        numbers |= {f"{name} {way}": [_right(answers) for answers in found[way]] for way in found}
        numbers |= {f"{name} by family": by_family(found, sizes.each)}
    count = f"{sizes.each} questions a family, {len(FAMILIES)} families, {WORDINGS} wordings, paired by question"
    varies = judged(VARIES, all(low > 0 for _, (low, _) in spreads.values()), f"{_spread(spreads)}; {count}", "effect")
    return exact, [beaten(gains, numbers, count), varies], interval, numbers


def beaten(gains: Mapping[str, Mapping[str, Gain]], numbers: Mapping[str, Any], count: str) -> Clause:
    """Holds when every family gains on every model: one that falls is not made up for by the others."""
    holds = all(low > 0 for families in gains.values() for _, (low, _) in families.values())
    return judged(BEATS, holds, f"accuracy over direct prompting: {_told(gains, numbers)}; {count}", "effect")


def _faster(exact: Clause, real: Clause, more: dict) -> Clause:
    mean, (low, high) = ratio_interval(more["speed_ratios"])
    figure = f"{exact.figure}; {real.figure}, batched {mean:.2f}x [{low:.2f}, {high:.2f}] as fast in processor time"
    return judged(SAME, exact.status == real.status == "passed" and low > 1, figure)


def asked_all(engine: Engine, each: int, answered: Answered) -> Found:
    """Every question in every wording, directly in both ways and by ThinkSum."""
    found: Found = {DIRECT: [], BEHIND: [], OURS: []}
    for wording in range(WORDINGS):
        posed = [behind(make(seed, wording), wording) for make in FAMILIES.values() for seed in range(each)]
        for strategy, answers in found.items():
            label = f"{engine.model_name}, wording {wording}"
            answers.append(ask(engine, posed, strategy, 0, answered=answered, label=label))
    return found


def behind(posed: Posed, wording: int) -> Posed:
    """With worked questions of its own family and wording to show."""
    meta = {**posed.task.meta, "examples": _shown(posed.family, wording)}
    return replace(posed, task=replace(posed.task, meta=meta))


@cache
def _shown(family: str, wording: int) -> Examples:
    """One for every letter, always in the same order."""
    drawn = [FAMILIES[family](APART + number, wording) for number in range(100)]
    chosen = [next(posed for posed in drawn if posed.gold == letter) for letter in WORDS.letters]
    asked: list[tuple[Options, str]] = [(posed.task.meta["choices"], posed.gold) for posed in chosen]
    worked = [Worked(options.stem, options.options, gold, "") for options, gold in asked]
    return Examples(worked, lambda texts: np.ones((len(texts), 1), np.float32))


def hardest(found: Found) -> str:
    """The way of direct prompting over which ThinkSum's gain is the least sure."""
    return min((way for way in found if way != OURS), key=lambda way: accuracy_gain(found, way)[1][0])


def accuracy_gain(found: Found, way: str = DIRECT) -> Gain:
    """ThinkSum minus a way of direct prompting, each question's accuracy over the wordings."""
    return paired_bootstrap(_by_question(found[OURS]), _by_question(found[way]))


def family_gains(found: Found, each: int) -> dict[str, Gain]:
    """The gain of every family by itself, over what is hardest to beat there."""
    return {name: accuracy_gain(one, hardest(one)) for name, one in _families(found, each).items()}


def _families(found: Found, each: int) -> dict[str, Found]:
    parts = [slice(place * each, (place + 1) * each) for place in range(len(FAMILIES))]
    cut = [{way: [answers[part] for answers in wordings] for way, wordings in found.items()} for part in parts]
    return dict(zip(FAMILIES, cut, strict=True))


def _by_question(answers: Sequence[Sequence[Asked]]) -> list[float]:
    return [fmean(asked.right for asked in wordings) for wordings in zip(*answers, strict=True)]


def disagreement_drop(found: Found) -> tuple[float, tuple[float, float]]:
    """Direct minus ThinkSum: the share of pairs of wordings that a question's answers disagree in."""
    return paired_bootstrap(_disagreement(found[DIRECT]), _disagreement(found[OURS]))


def _disagreement(answers: Sequence[Sequence[Asked]]) -> list[float]:
    return [
        fmean(one.answer != other.answer for one, other in combinations(wordings, 2))
        for wordings in zip(*answers, strict=True)
    ]


def by_family(found: Found, each: int) -> list[float]:
    """Accuracy of each family, over all wordings: what is hardest to beat there, and ThinkSum."""
    cut = _families(found, each).values()
    return [fmean(_right(answers) for answers in one[way]) for one in cut for way in (hardest(one), OURS)]


def _right(answers: Sequence[Asked]) -> float:
    return fmean(asked.right for asked in answers)


def _told(gains: Mapping[str, Mapping[str, Gain]], numbers: Mapping[str, Any]) -> str:
    told = []
    for name, families in gains.items():
        shares = numbers[f"{name} by family"]
        each = [
            f"{family} {shares[2 * i]:.2f} to {shares[2 * i + 1]:.2f} ({mean:+.3f} [{low:+.3f}, {high:+.3f}])"
            for i, (family, (mean, (low, high))) in enumerate(families.items())
        ]
        told.append(f"{name}: {', '.join(each)}")
    return "; ".join(told)


def _spread(spreads: dict[str, tuple[float, tuple[float, float]]]) -> str:
    return "; ".join(
        f"{name}: pairs of wordings that disagree fall by {mean:.3f} [{low:.3f}, {high:.3f}]"
        for name, (mean, (low, high)) in spreads.items()
    )


CLAIM = Claim(
    ROW.id,
    ROW.number,
    "Likelihoods of many statements come from one batch, exactly, and their sums need no words.",
    "Direct prompting on the same model, in each family whichever is harder to beat: the likeliest letter behind the "
    "question with its options, or the letter written behind four such questions with theirs.",
    ("exact", "effect"),
    "Odd one out, invented words and orders from comparisons, four options each. A comparison is thought of behind "
    "eight worked ones, and above its opposite, with either person named first.",
    run,
)


class Whisper(CrossTalk):
    """A little is enough to be heard."""

    share = 0.05
