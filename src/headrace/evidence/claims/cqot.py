"""System 77, Critical-Questions-of-Thought: a plan is questioned before it is followed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from headrace.engine.engine import Engine
from headrace.evidence.asking import ask, gain, share, signed
from headrace.evidence.scripted import Chances, says, scripted_engine
from headrace.evidence.stage import Stage
from headrace.evidence.systems import system
from headrace.evidence.verdict import NOT_IN_QUICK, judged, left_open, mutant_run
from headrace.reason import operators
from headrace.reason.account import Account
from headrace.reason.answers import Number
from headrace.reason.cost import TokenCost
from headrace.reason.journal import Journal
from headrace.reason.purse import Purse
from headrace.reason.run import Run
from headrace.reason.solve import Order, Result, solve
from headrace.reason.statistics import auc
from headrace.reason.strategies.questioning import QUESTIONS
from headrace.reason.task import Task
from headrace.reason.tasks.arguments import ASKED, FAULTS, Argument, argument
from headrace.spec.budget import Budget
from headrace.spec.claim import Claim, Clause, Evidence, Size
from headrace.spec.errors import HeadraceError
from headrace.spec.events import EventLog
from headrace.spec.sampling import Stop
from headrace.spec.trace import Trace

ROW = system(77)
PIPELINE, FLAGS, ACCURACY = ROW.clauses
MODEL = "qwen2.5-coder-0.5b"
ABOUT = "{question}\n\nAn argument:\n\n{argument}"
RIVAL = "self_consistency(n=8)"


@dataclass(frozen=True, slots=True)
class Sizes:
    """`judged` questions, each once sound and once with every fault; `asked` questions of the accuracy clause."""

    judged: int
    asked: int


SIZES: dict[Size, Sizes] = {"quick": Sizes(0, 0), "full": Sizes(8, 8)}


def run(size: Size) -> Evidence:
    sizes = SIZES[size]
    with scripted_engine(doubter(0)) as engine:
        nodding, _ = flagged(engine, _arguments(4), chat=False)
    null_run = mutant_run("Mutant: a critic that says yes to everything", [nodding])
    flags, accuracy, interval = left_open(FLAGS, NOT_IN_QUICK), left_open(ACCURACY, NOT_IN_QUICK), None
    numbers: dict[str, float | int | str | list[float]] = {"questions": len(QUESTIONS)}
    if sizes.judged:
        try:
            with Stage.named(MODEL, 512, threads=2) as stage, stage.engine(prefix_cache=True) as engine:
                flags, more = flagged(engine, _arguments(sizes.judged))
                accuracy, interval, rest = measured(engine, sizes.asked)
            numbers |= more | rest
        except HeadraceError as error:
            flags, accuracy = (left_open(text, f"the model could not be loaded: {error}") for text in (FLAGS, ACCURACY))
    return Evidence(CLAIM.id, (piped(), flags, accuracy), null_run, numbers, interval, "", size)


# -- the pipeline, on a model whose every verdict is known -----------------------------------------


def doubter(doubts: int) -> Chances:
    """Says no to the first `doubts` questions about a first plan, and yes to everything else."""
    script = says(("the complete answer.", "42"), ("to the answer.\n", "Multiply."), ("?\n", "Add."))

    def chances(text: str) -> Mapping[str, float]:
        before, asked, said = text.rpartition("Answer yes or no:")
        if not asked:
            return script(text)
        doubt = "An earlier plan" not in before and any(question in before for question in QUESTIONS[:doubts])
        verdict = {"n": 0.9, "y": 0.1} if doubt else {"y": 0.8, "n": 0.2}
        return {"": {" ": 1.0}, " ": verdict, " n": {"o": 1.0}, " y": {"e": 1.0}, " ye": {"s": 1.0}}[said]

    return chances


def piped() -> Clause:
    """A verdict for every question in the trace, thresholds that decide, and tries that end."""
    wrong: list[str] = []
    for doubts in range(len(QUESTIONS) + 1):
        for passing in (1, 4, 7, 8):
            found = _solved(doubter(doubts), f"critical_questions(passing={passing})")
            turns = 1 if len(QUESTIONS) - doubts >= passing else 2
            wrong += [] if _turns(found) == turns and found.answer == "42" else [f"{doubts} doubts, {passing} to pass"]
    for tries in range(1, 5):
        found = _solved(doubter(0), f"critical_questions(sure=0.99, tries={tries})")
        wrong += [] if _turns(found) == tries and found.answer == "42" else [f"{tries} tries"]
    runs = 4 * (len(QUESTIONS) + 1) + 4
    figure = f"{len(wrong)} of {runs} runs differ from the verdicts that were scripted{': ' if wrong else ''}"
    return judged(PIPELINE, not wrong, figure + ", ".join(wrong[:3]), "effect")


def _turns(found: Result) -> int:
    """How many plans were questioned; 0 where a question has no verdict of its own."""
    verdicts = [event.data for event in found.trace.of("verdict")]
    turns = 1 + max(verdict["turn"] for verdict in verdicts)
    asked = [verdict["question"] for verdict in verdicts]
    return turns if asked == list(QUESTIONS) * turns else 0


def _solved(chances: Chances, strategy: str) -> Result:
    task = Task("6 * 7 = ?\n", Number(), ending=Stop(tokens=40), chat=False)
    with scripted_engine(chances) as engine:
        return asyncio.run(solve(engine, task, Order(strategy, seed=0)))


# -- planted faults --------------------------------------------------------------------------------


def _arguments(count: int) -> list[Argument]:
    return [argument(seed, fault) for seed in range(count) for fault in ("none", *FAULTS)]


def flagged(
    engine: Engine, made: Sequence[Argument], chat: bool = True
) -> tuple[Clause, dict[str, float | int | str | list[float]]]:
    """How well the mean probability of yes over all questions tells sound arguments from faulty ones."""
    yeses = asyncio.run(_verdicts(engine, made, chat))
    means = [fmean(row) for row in yeses]
    sound = [one.fault == "none" for one in made]
    value, (low, high) = auc(means, sound, [one.posed.task.question for one in made])
    apart = {fault: _against(means, made, fault) for fault in FAULTS}
    told = ", ".join(f"{fault} {share:.2f}" for fault, share in apart.items())
    passes = fmean(sum(yes > 0.5 for yes in row) for row in yeses)
    figure = (
        f"{engine.model_name}: AUC {value:.3f} [{low:.3f}, {high:.3f}] over {len(made)} arguments "
        f"(by fault: {told}); {passes:.1f} of {len(QUESTIONS)} questions pass on average"
    )
    numbers: dict[str, float | int | str | list[float]] = {"auc": value, "auc_low": low, "auc_high": high}
    return judged(FLAGS, low > 0.5, figure, "effect"), numbers


def _against(means: Sequence[float], made: Sequence[Argument], fault: str) -> float:
    """The AUC of the sound arguments against those with one kind of fault."""
    chosen = [place for place, one in enumerate(made) if one.fault in ("none", fault)]
    return auc([means[place] for place in chosen], [made[place].fault == "none" for place in chosen], resamples=1)[0]


async def _verdicts(engine: Engine, made: Sequence[Argument], chat: bool) -> list[list[float]]:
    """P(yes) of every question about every argument, on forks that share its pages."""
    found = []
    for one in made:
        text = ABOUT.format(question=one.posed.task.question.removesuffix(ASKED), argument=one.text)
        account = Account(Budget(), lambda: 0.0)
        purse = Purse(account, TokenCost.of(engine.spec), EventLog())
        run = Run(engine, engine.context, Task(text, Number(), chat=chat), purse, Journal(Trace()), 0)
        node = await run.open()
        yeses = await operators.ask_yes_no(run, [node] * len(QUESTIONS), QUESTIONS)
        run.close()
        found.append([yes for yes in yeses if yes is not None])
    return found


# -- accuracy at equal tokens ----------------------------------------------------------------------


def measured(
    engine: Engine, count: int
) -> tuple[Clause, tuple[float, float], dict[str, float | int | str | list[float]]]:
    """The same questions by critical questions, and by chains of thought that may draw as many tokens."""
    posed = [argument(1000 + seed).posed for seed in range(count)]
    ours = ask(engine, posed, "critical_questions(tries=2)")
    theirs = ask(engine, posed, RIVAL, budgets=[Budget(tokens=asked.drawn) for asked in ours])
    one = ask(engine, posed, "single", temperature=0)
    difference = gain(ours, theirs)
    drawn = [fmean(asked.drawn for asked in found) for found in (ours, theirs)]
    figure = (
        f"{engine.model_name}, {count} questions: critical questions {share(ours)} ({drawn[0]:.0f} drawn), chains and "
        f"a vote {share(theirs)} ({drawn[1]:.0f} drawn), one chain {share(one)}; difference {signed(difference)}"
    )
    numbers: dict[str, float | int | str | list[float]] = {"difference": difference[0]}
    numbers |= {"ours": [float(a.right) for a in ours], "theirs": [float(a.right) for a in theirs]}
    return judged(ACCURACY, True, figure, "effect"), difference[1], numbers


CLAIM = Claim(
    ROW.id,
    ROW.number,
    "Eight fixed questions are put to forks of every plan; their verdicts are logged and decide on another try.",
    "Chains of thought and a vote that draw no more tokens; a critic that says yes to everything.",
    ("effect",),
    "Word problems of two steps; arguments about them with a missing premise, a false one or a wrong step.",
    run,
)
