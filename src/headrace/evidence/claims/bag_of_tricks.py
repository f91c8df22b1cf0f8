"""System 19, Bag of Tricks: six test-time methods under one token budget, and the knobs that are overlooked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from headrace.engine.engine import Engine
from headrace.evidence.adder import adder
from headrace.evidence.asking import signed
from headrace.evidence.contest import Contest, Outcome, contest_store
from headrace.evidence.scripted import scripted_engine
from headrace.evidence.systems import system
from headrace.evidence.verdict import NOT_IN_QUICK, judged, left_open, mutant_run
from headrace.reason.evaluation.filling import How
from headrace.reason.intervals import Interval, paired_bootstrap, wilson
from headrace.reason.scorers.judge import Judge
from headrace.reason.tasks.arith import problems
from headrace.reason.tasks.arith_task import ArithJudge
from headrace.reason.tasks.fixtures import fixture
from headrace.reason.tasks.gym import ASK
from headrace.reason.tasks.item import Item
from headrace.reason.tasks.registry import items
from headrace.spec.claim import Claim, Clause, Evidence, Size
from headrace.spec.errors import HeadraceError
from headrace.spec.options import EngineOptions
from headrace.spec.sampling import Sampling, Stop

ROW = system(19)
ONE_BUDGET, TABLE, KNOBS, AGAIN = ROW.clauses
TRAINED_HERE, Q = "lm-t-small", "qwen2.5-coder-0.5b"
WITHIN = 0.05
VOTE = "self-consistency"

ONCE = {
    "best-of-N": "best_of_n(n=4)",
    "step best-of-N": "step_best_of_n(n=4)",
    VOTE: "self_consistency(n=4)",
    "beam": "step_beam(width=4, expand=2)",
    "MCTS": "mcts(simulations=16)",
}
REFINE = "self-refine"
BY_VERDICT, BY_CRITIQUE = "rewind_first_bad(tries=3)", "critique_and_revise(rounds=3)"
"""Three corrections at most. LM-T reads no prose: it goes back to the first step that its own verdict doubts."""

SUMS, WORDS = "arith:sums", "arith:words"
ARITH = (f"{SUMS}(steps=5)", f"{SUMS}(steps=6,largest=10)", f"{WORDS}(steps=4)", f"{WORDS}(steps=5)")
GYM = (
    "gym:chain_sum(min_terms=3,max_terms=4,min_digits=1,max_digits=2)",
    "gym:simple_equations(min_value=1,max_value=20)",
    "gym:gcd(min_value=1,max_value=60)",
    "gym:products(min_terms=2,max_terms=2,min_digits=1,max_digits=2)",
)
SHOWN = (
    ("Calculate 12 + 7 - 4.", "12 + 7 = 19\n19 - 4 = 15\n\\boxed{15}"),
    ("Find the value of x in the equation: 3*x + 5 = 26", "3*x = 26 - 5 = 21\nx = 21 / 3 = 7\n\\boxed{7}"),
    ("Find the greatest common divisor of 12 and 18.", "12 = 6 * 2\n18 = 6 * 3\n\\boxed{6}"),
)
"""Turns before every question of Q, which is brief by example and not when asked to be."""
KNOB_SETTINGS = ((0.4, 1.0), (0.6, 1.0), (0.8, 1.0), (1.0, 1.0), (1.2, 1.0), (0.8, 0.9), (0.8, 0.7))
USUAL = (0.8, 1.0)
"""Temperature and top-p."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Questions a family: of LM-T, of Q, of the knobs, and of a re-run."""

    trained: int
    q: int
    knobs: int
    again: int


SIZES: dict[Size, Sizes] = {"quick": Sizes(0, 0, 0, 0), "full": Sizes(50, 8, 25, 2)}


def run(size: Size) -> Evidence:
    scripted = on_a_script()
    spent, again = under_one_budget([scripted.first]), identical([scripted])
    null_run = mutant_run(
        "Mutants: methods that stop when they are done; a re-run from another seed",
        [under_one_budget([scripted.once]), identical([replace(scripted, second=scripted.other)])],
    )
    if size == "quick":
        one = left_open(ONE_BUDGET, f"{spent.figure}; Q and {TRAINED_HERE}: {NOT_IN_QUICK}")
        if spent.status == "failed":
            one = spent
        rest = (left_open(TABLE, NOT_IN_QUICK), left_open(KNOBS, NOT_IN_QUICK), again)
        return Evidence(
            CLAIM.id, (one, *rest), null_run, {"questions": len(scripted.first.contest.items)}, None, "", size
        )
    return replace(in_full(SIZES[size]), null_run=null_run)


# -- a model of known error, in seconds ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Runs:
    """The same contest twice, or once from another seed, or with methods that run once."""

    first: Outcome
    second: Outcome
    other: Outcome
    once: Outcome


def on_a_script(each: int = 1, tokens: int = 240) -> Runs:
    """Four kinds of sums put to a scripted model that errs at a known rate; a character is a token."""
    steps = (2, 3, 4, 5)
    families = {f"sums of {count}": items(f"{SUMS}(steps={count})", each) for count in steps}
    asked = [problem for count in steps for problem in problems("sums", count, each)]
    how = How(scorer=ArithJudge(), concurrency=8)
    contest = Contest("scripted", families, repeated(BY_VERDICT), (tokens,), how)
    with scripted_engine(adder(asked), pages=2000) as engine:
        return Runs(
            contest.held(engine),
            contest.part(each, (tokens,), concurrency=1).held(engine),
            contest.part(each, (tokens,), seed=1).held(engine),
            replace(contest, methods=repeated(BY_VERDICT, times=1)).held(engine),
        )


def repeated(refine: str, times: int = 99) -> dict[str, str]:
    """Every method begins again while there is budget, so that all of them spend it."""
    return {name: f"{how} * {times}" for name, how in (ONCE | {REFINE: refine}).items()}


# -- clauses ---------------------------------------------------------------------------------------


def under_one_budget(found: Sequence[Outcome], models: int = 1) -> Clause:
    """Each method's mean of spent tokens is within 5 % of the budget, on every model."""
    figures, holds = [], len(found) == models
    for one in found:
        contest = one.contest
        shares = {(name, budget): one.spent(name, budget) for name in contest.methods for budget in contest.budgets}
        beyond = [
            f"{name} {share:.2f} of {budget}" for (name, budget), share in shares.items() if abs(share - 1) > WITHIN
        ]
        holds &= not beyond and len(contest.families) >= 4 and len(contest.methods) == 6
        told = f"{min(shares.values()):.3f} to {max(shares.values()):.3f} of {_spoken(contest.budgets)} tokens"
        figures.append(
            f"{contest.model}, {len(contest.items)} questions of {len(contest.families)} families: "
            f"the {len(contest.methods)} methods spent {told}{'; outside: ' + ', '.join(beyond) if beyond else ''}"
        )
    return judged(ONE_BUDGET, holds, "; ".join(figures))


def tabulated(found: Sequence[Outcome]) -> Clause:
    """Accuracy of each method at each budget with Wilson's interval; which differ from the vote, corrected for all."""
    told, whole = [], True
    for one in found:
        rows = []
        for name in one.contest.methods:
            cells = [_accuracy(one.right(name, budget)) for budget in one.contest.budgets]
            whole &= all(len(one.right(name, budget)) == len(one.contest.items) for budget in one.contest.budgets)
            rows.append(f"{name} {' / '.join(cells)}")
        told.append(
            f"{one.contest.model} at {_spoken(one.contest.budgets)} tokens: {', '.join(rows)}{_against_vote(one)}"
        )
    return judged(TABLE, whole and bool(found), "; ".join(told), "effect")


def _against_vote(one: Outcome) -> str:
    """What the comparisons with self-consistency show, and the smallest difference they would have found."""
    compared = one.figures["comparisons"]
    names = {how: name for name, how in one.contest.methods.items()}
    shown = [
        f"{names[c['strategy']]} at {c['budget']} {signed((c['difference'], c['interval']))}"
        for c in compared
        if c["verdict"] != "no difference shown" and c["holm"] < 0.05
    ]
    least = min(c["detectable"] for c in compared if c["detectable"] is not None)
    differing = ", ".join(shown) or "none"
    return f" (other than {VOTE}, paired and corrected: {differing}; smallest detectable difference {least:.2f})"


def _accuracy(right: Sequence[float]) -> str:
    low, high = wilson(sum(right), len(right))
    return f"{fmean(right):.2f} [{low:.2f}, {high:.2f}]"


def _spoken(budgets: Sequence[int]) -> str:
    return ", ".join(map(str, budgets))


def identical(found: Sequence[Runs]) -> Clause:
    """Every text, answer, score and count of a fresh run, with other questions beside it, is what was stored."""
    counts = [(one.first.differing(one.second), len(one.second.samples), one.first.contest.model) for one in found]
    figure = "; ".join(f"{model}: {differing} of {total} runs differ" for differing, total, model in counts)
    return judged(AGAIN, bool(counts) and all(not differing and total for differing, total, _ in counts), figure)


# -- real models -----------------------------------------------------------------------------------


def trained_here(each: int) -> Contest:
    families = {name: items(name, each) for name in ARITH}
    how = How(scorer=ArithJudge(), sampling=Sampling(temperature=USUAL[0]), concurrency=32)
    return Contest(TRAINED_HERE, families, repeated(BY_VERDICT), (192, 384), how)


def with_q(each: int) -> Contest:
    """Few questions and short answers, so that several attempts fit; a method's questions at once decode fastest."""
    families = {name: [brief(item) for item in items(name, each)] for name in GYM}
    how = How(scorer=Judge(), sampling=Sampling(temperature=0.7), concurrency=32)
    return Contest(Q, families, repeated(BY_CRITIQUE), (128,), how)


def brief(item: Item) -> Item:
    """Steps are lines, and an answer has few of them."""
    turns = [({"role": "user", "content": asked}, {"role": "assistant", "content": said}) for asked, said in SHOWN]
    task = replace(
        item.task,
        question=item.task.question.removesuffix(ASK),
        before=tuple(turn for pair in turns for turn in pair),
        step=Stop(tokens=32, text=("\n",), include=True),
        ending=Stop(tokens=64),
    )
    return replace(item, task=task)


def engine_of(contest: Contest) -> Engine:
    """Raises ModelFileError where the model is not here, UnsupportedModel where it cannot be trained."""
    if contest.model == Q:
        return Engine.load(Q, EngineOptions(threads=1, activations="int8", state_memory=768, context=1024))
    return Engine.load(fixture(contest.model), EngineOptions(threads=1, state_memory=256))


def in_full(sizes: Sizes) -> Evidence:
    found: list[Runs] = []
    numbers: dict[str, Any] = {}
    knobs, interval = left_open(KNOBS, "no model could be had"), None
    missing = ""
    for contest, again in ((trained_here(sizes.trained), sizes.again), (with_q(sizes.q), 1)):
        try:
            with engine_of(contest) as engine:
                found.append(twice(engine, contest, again))
                if contest.model == TRAINED_HERE:
                    knobs, interval, more = ablated(engine, contest, sizes.knobs)
                    numbers |= more
        except HeadraceError as error:
            missing = f"; {contest.model} could not be had: {error}"
        else:
            numbers |= figures_of(found[-1].first)
    outcomes = [one.first for one in found]
    spent = under_one_budget(outcomes, models=2)
    if missing:
        spent = left_open(ONE_BUDGET, spent.figure + missing)
    clauses = (spent, tabulated(outcomes), knobs, identical(found))
    return Evidence(CLAIM.id, clauses, spent, numbers, interval, "", "full")


def twice(engine: Engine, contest: Contest, again: int) -> Runs:
    """The contest from its store, and a part of it anew at the smallest budget, fewer questions at a time."""
    first = contest.held(engine, contest_store(CLAIM.id, contest.model))
    part = contest.part(again, contest.budgets[:1], concurrency=5)
    second = part.held(engine)
    return Runs(first, second, second, first)


def figures_of(one: Outcome) -> dict[str, list[float]]:
    """By method: accuracy and spent share at each budget, and the families' accuracy at the largest."""
    contest, found = one.contest, dict[str, list[float]]()
    for name in contest.methods:
        found[f"{contest.model} {name} right"] = [fmean(one.right(name, budget)) for budget in contest.budgets]
        found[f"{contest.model} {name} spent"] = [one.spent(name, budget) for budget in contest.budgets]
        found[f"{contest.model} {name} by family"] = list(one.by_family(name, contest.budgets[-1]).values())
    return found


# -- knobs -----------------------------------------------------------------------------------------

Shares = dict[tuple[float, float], list[float]]
"""By temperature and top-p: for each question, 1 where the method was right."""


def ablated(engine: Engine, contest: Contest, each: int, n: int = 8) -> tuple[Clause, Interval, dict[str, list[float]]]:
    """Eight attempts at every setting, as a vote and as the best of them; paired with the usual setting."""
    methods = {VOTE: f"self_consistency(n={n}) * 1", "best-of-N": f"best_of_n(n={n}) * 1"}
    shares: dict[str, Shares] = {name: {} for name in methods}
    texts = {}
    for setting in KNOB_SETTINGS:
        temperature, top_p = setting
        knobs = replace(contest, methods=methods).part(each, (160 * n,), sampling=Sampling(temperature, top_p=top_p))
        found = knobs.held(engine, contest_store(CLAIM.id, f"knobs-{temperature}-{top_p}"))
        texts[setting] = [sample.text for sample in found.of(VOTE, 160 * n)]
        for name in methods:
            shares[name][setting] = found.right(name, 160 * n)
    reached = all(texts[setting] != texts[USUAL] for setting in KNOB_SETTINGS if setting != USUAL)
    told = "; ".join(f"{name}: {_settings(found)}" for name, found in shares.items())
    count = len(texts[USUAL])
    figure = f"{contest.model}, {count} questions, {n} attempts, T/top-p: {told}; differences paired with T {USUAL[0]}"
    numbers = {f"knobs {name}": [fmean(right) for right in found.values()] for name, found in shares.items()}
    return judged(KNOBS, reached, figure, "effect"), _widest(shares[VOTE]), numbers


def _settings(found: Mapping[tuple[float, float], Sequence[float]]) -> str:
    told = []
    for (temperature, top_p), right in found.items():
        change = "" if (temperature, top_p) == USUAL else f" ({signed(paired_bootstrap(right, found[USUAL]))})"
        told.append(f"{temperature}/{top_p} {fmean(right):.2f}{change}")
    return ", ".join(told)


def _widest(found: Mapping[tuple[float, float], Sequence[float]]) -> Interval:
    """The interval of the largest difference that temperature alone makes to the vote."""
    warm = [right for (_, top_p), right in found.items() if top_p == 1.0]
    best, worst = max(warm, key=fmean), min(warm, key=fmean)
    return paired_bootstrap(best, worst)[1]


CLAIM = Claim(
    ROW.id,
    ROW.number,
    "Six methods under one token budget, each beginning again until it is spent, on one bench with its knobs.",
    "Self-consistency on the same questions within the same tokens.",
    ("exact", "effect"),
    "Drawn tokens, the same for every method; sums and word problems for LM-T, puzzles of reasoning-gym for Q.",
    run,
)
