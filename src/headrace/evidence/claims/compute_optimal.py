"""System 94, compute-optimal scaling: compute by the difficulty of a question, which a few attempts show."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from random import Random
from statistics import fmean

from headrace.evidence.allocating import SEARCH, Against, Board, Case, against, estimated, matched, whole_table
from headrace.evidence.stage import Stage
from headrace.evidence.systems import system
from headrace.evidence.verdict import NOT_IN_QUICK, judged, left_open, mutant_run
from headrace.reason.allocator import STAY
from headrace.reason.answers import Number
from headrace.reason.cost import TokenCost
from headrace.reason.evaluation.allocation import Pool
from headrace.reason.evaluation.filling import How, Job, fill
from headrace.reason.evaluation.pooled import ATTEMPT, Question
from headrace.reason.evaluation.scoring import Look
from headrace.reason.evaluation.store import Kind, Sample, Scoring, Store
from headrace.reason.intervals import paired_bootstrap
from headrace.reason.tasks.arith_task import ArithJudge
from headrace.reason.tasks.fixtures import fixture, fixture_recipe
from headrace.reason.tasks.item import Item
from headrace.reason.tasks.registry import items
from headrace.spec.budget import Budget
from headrace.spec.claim import Claim, Clause, Evidence, Size
from headrace.spec.errors import HeadraceError
from headrace.spec.sampling import Sampling

ROW = system(94)
ESTIMATED, ALLOCATED, MATCHED = ROW.clauses
SMALL, LARGE = "lm-t-small", "lm-t-large"
CELLS = (
    *(f"arith:sums(steps={steps})" for steps in (3, 5, 6)),
    "arith:sums(steps=6, largest=10)",
    *(f"arith:words(steps={steps})" for steps in (3, 4, 5, 6)),
)
POOL, BEAMS, TEMPERATURE = 16, 2, 0.8
PLAIN, WEIGHTED = f"best_of_n(n={POOL})", f"weighted_vote(n={POOL})"
"""Best-of-N by the model's own verdict alone, and weighted, which is the paper's own baseline."""
MARGIN, HALF = 0.01, 0.5
TABLE = "lm-t"
FRESH_SEED = 1

CHANCES = (0.97, 0.97, 0.97, 0.5, 0.0)
"""Of a right attempt, in the planted pools: three fifths easy, one where attempts help, one hopeless."""

Numbers = dict[str, float | int | str | list[float]]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Questions a cell of the pools, and of the live runs on fresh questions; 0 plants pools instead."""

    each: int
    live: int


SIZES: dict[Size, Sizes] = {"quick": Sizes(0, 0), "full": Sizes(60, 15)}


def run(size: Size) -> Evidence:
    sizes = SIZES[size]
    if not sizes.each:
        board = Board.of(planted(100))
        clauses = [left_open(c.text, f"{NOT_IN_QUICK}; on planted pools {c.status}: {c.figure}") for c in judge(board)]
        return Evidence(CLAIM.id, tuple(clauses), mutants(board), {"questions": len(board.cases)}, None, "", size)
    try:
        board = Board.of(collected(sizes.each))
        clauses = judge(board)
        told, numbers = live(sizes.live)
    except HeadraceError as error:
        clauses = [left_open(text, f"LM-T could not be had: {error}") for text in ROW.clauses]
        return Evidence(CLAIM.id, tuple(clauses), mutants(Board.of(planted(100))), {}, None, "", size)
    clauses[1] = Clause(ALLOCATED, clauses[1].status, f"{clauses[1].figure}; {told}", "effect")
    weighted = against(board, WEIGHTED)
    numbers |= _numbers(board, weighted)
    return Evidence(CLAIM.id, tuple(clauses), mutants(board), numbers, weighted.interval, "", size)


def judge(board: Board) -> list[Clause]:
    return [judged_estimate(board), judged_tables(board), judged_match(board)]


# -- the clauses -----------------------------------------------------------------------------------


def judged_estimate(board: Board) -> Clause:
    """Holds when the estimate tells what fails, above chance, and no known answer has any part in it."""
    found = estimated(board)
    low, high = found.interval
    parts = ", ".join(f"{name} {value:.2f}" for name, value in found.parts.items())
    bins = ", ".join(f"{share:.2f}" for share in found.bins)
    figure = (
        f"AUC {found.auc:.3f} [{low:.3f}, {high:.3f}] of the probe's agreement and verdicts against the failure of "
        f"the next attempt ({parts} alone), right in {bins} from the easiest fifth on; {found.blind} of "
        f"{found.count} estimates are the same with every known answer turned round; {len(board.cases)} questions"
    )
    return judged(ESTIMATED, low > 0.5 and found.blind == found.count, figure, "effect")


def judged_tables(board: Board) -> Clause:
    """Holds when both kinds of best-of-N are reached; the plain one alone may be no feat where it falls with N."""
    found = [against(board, rival) for rival in (PLAIN, WEIGHTED)]
    alone = [against(board, rival, bins=1) for rival in (PLAIN, WEIGHTED)]
    reached = [one.reaches(MARGIN, HALF) for one in found]
    told = []
    for one, same, holds in zip(found, alone, reached, strict=True):
        plan = " and ".join(dict.fromkeys(_named(table.plans[0]) for table in same.tables))
        word = "reached" if holds else "not reached"
        told.append(f"{one} ({word}; one plan for all, {plan}: {same.gain:+.3f} at {same.ratio:.2f})")
    blind = against(board.shuffled(), WEIGHTED)
    figure = (
        f"{'; '.join(told)}; with difficulties dealt out at random {blind.gain:+.3f} at {blind.ratio:.2f} of the "
        f"tokens of {blind.rival}; tokens are all that is drawn or given, verdicts too; {len(board.cases)} questions"
    )
    return judged(ALLOCATED, all(reached), figure, "effect")


def judged_match(board: Board) -> Clause:
    """Holds when every bin is reported and none spends more than it was matched with; who wins is not judged."""
    costs = fmean(case.flops / case.attempt_flops for case in board.cases)
    told, fair = [], True
    for trained, what in ((0.0, "inference alone"), (1.0, "training counted, as many tokens as inference")):
        bins = matched(board, trained)
        fair = fair and all(one.spent <= 1 + 1e-9 for one in bins)
        attempts = fmean(one.attempts for one in bins)
        shown = "; ".join(f"{number}. {one}" for number, one in enumerate(bins, 1))
        told.append(f"{what}, {attempts:.1f} attempts of the small for one greedy of the large: {shown}")
    large = fmean(case.right for case in board.cases)
    figure = (
        f"one attempt of the large costs {costs:.1f} of the small with their verdicts and is right in {large:.3f}; "
        f"small against large from the easiest fifth to the hardest, {'. '.join(told)}"
    )
    return judged(MATCHED, fair, figure, "effect")


def mutants(board: Board) -> Clause:
    """Difficulties dealt out at random; one attempt for all where plans should follow. Both must be noticed."""
    one = Board.of(board.cases, (STAY,), probe=1)
    found = [judged_estimate(board.shuffled()), judged_tables(one)]
    null_run = mutant_run("Mutants: difficulties dealt out at random; one attempt for every question", found)
    if all(clause.status == "failed" for clause in found):
        return null_run
    return Clause(null_run.text, "failed", "one of them went unnoticed")


def _named(plan: str) -> str:
    return plan or "the probe alone"


def _numbers(board: Board, weighted: Against) -> Numbers:
    bins = matched(board)
    return {
        "questions": len(board.cases),
        "gain_over_weighted": weighted.gain,
        "token_ratio_to_weighted": weighted.ratio,
        "matched_small": [one.small for one in bins],
        "matched_large": [one.large for one in bins],
        "tables": " | ".join(", ".join(map(_named, table.plans)) for table in weighted.tables),
        "table": json.dumps(asdict(whole_table(board, WEIGHTED))),
    }


# -- pools -----------------------------------------------------------------------------------------


def collected(each: int) -> list[Case]:
    """Pools and beams of the small model, one greedy attempt of the large one."""
    asked = [item for cell in CELLS for item in items(cell, each)]
    small = _answers(SMALL, asked, (Jobs(ATTEMPT, POOL), Jobs(SEARCH, BEAMS)), TEMPERATURE)
    (large,) = _answers(LARGE, asked, (Jobs("single", 1),), 0.0).samples
    pooled, beam = small.samples
    cases = []
    for item in asked:
        question = Question.of(item.id, pooled[item.id], item.task.answers, small.scorings[item.id])
        (other,) = large[item.id]
        prompt = small.cost.flops(0, pooled[item.id][0].prompt)
        stored = Pool(question, item.task.answers, {SEARCH: beam[item.id]})
        cases.append(Case(stored, other.kind == "right", other.flops, prompt))
    return cases


@dataclass(frozen=True, slots=True)
class Jobs:
    """A strategy and how often each question is put to it."""

    strategy: str
    draws: int


@dataclass(frozen=True, slots=True)
class Answers:
    """The samples of each of the jobs by question, and what the scorer made of those of a pool."""

    samples: list[dict[str, list[Sample]]]
    scorings: dict[str, list[Scoring]]
    cost: TokenCost


def _answers(model: str, asked: Sequence[Item], wanted: Sequence[Jobs], temperature: float) -> Answers:
    """The scorer is the model's own verdict, except when greedy."""
    how = How(0, Sampling(temperature=temperature), ArithJudge() if temperature else None, 32)
    found, scorings = [], {}
    with Stage.named(str(fixture(model)), 512, threads=1) as stage, stage.engine(prefix_cache=True) as engine:
        for one in wanted:
            store = Store(None, {"model": model})
            scorer = None if one.strategy == ATTEMPT else how.scorer
            jobs = {i.id: [Job(i, one.strategy, Budget(), draw, scorer) for draw in range(one.draws)] for i in asked}
            asyncio.run(fill(engine, [job for each in jobs.values() for job in each], store, how))
            found.append({id: [store.samples[job.key] for job in each] for id, each in jobs.items()})
            if one.strategy == ATTEMPT and how.scorer is not None:
                looks = {i.id: [Look(i, draw, how.scorer) for draw in range(one.draws)] for i in asked}
                asyncio.run(fill(engine, [look for each in looks.values() for look in each], store, how))
                scorings = {id: [store.scorings[look.key] for look in each] for id, each in looks.items()}
        return Answers(found, scorings, TokenCost.of(engine.spec))


def live(each: int) -> tuple[str, Numbers]:
    """The shipped table, the default and the weighted best-of-N as they run, on questions that no table has seen."""
    asked = [item for cell in CELLS for item in items(cell, each, FRESH_SEED)]
    strategies = (WEIGHTED, f"auto(table={TABLE!r})", "auto")
    found = _answers(SMALL, asked, [Jobs(strategy, 1) for strategy in strategies], TEMPERATURE).samples
    (greedy,) = _answers(SMALL, asked, [Jobs("single", 1)], 0.0).samples
    rival, *_ = found
    told, numbers = [], Numbers()
    for strategy, samples in zip((*strategies, "one greedy attempt"), (*found, greedy), strict=True):
        right = [float(samples[item.id][0].kind == "right") for item in asked]
        tokens = fmean(samples[item.id][0].tokens + samples[item.id][0].prefill for item in asked)
        gain, (low, high) = paired_bootstrap(right, [float(rival[item.id][0].kind == "right") for item in asked])
        versus = "" if strategy == WEIGHTED else f" ({gain:+.3f} [{low:+.3f}, {high:+.3f}])"
        told.append(f"{strategy} {fmean(right):.3f}{versus} at {tokens:.0f} tokens")
        numbers[f"live {strategy}"] = [fmean(right), tokens]
    return f"live on {len(asked)} fresh questions: {', '.join(told)}", numbers


def planted(count: int, seed: int = 0) -> list[Case]:
    """Pools of questions whose chance of a right attempt is known, with a scorer that is right more often than not."""
    rng = Random(seed)
    return [_planted(rng, number, CHANCES[number % len(CHANCES)]) for number in range(count)]


def _planted(rng: Random, number: int, chance: float) -> Case:
    id, samples, scorings = f"planted/{number}", [], []
    for draw in range(POOL):
        right = rng.random() < chance
        kind: Kind = "right" if right else "wrong"
        answer = "7" if right else str(rng.randint(10, 14))
        score = min(max(rng.gauss(0.8 if right else 0.3, 0.15), 0.0), 1.0)
        samples.append(_sample(id, draw, kind, answer, None, rng.randint(30, 50)))
        scorings.append(Scoring(id, draw, "planted", score, 0, 4, 0, 0.0, 0.0))
    searches = {SEARCH: [_sample(id, 0, "wrong", "10", 0.2, 160)]}
    stored = Pool(Question.of(id, samples, Number(), scorings), Number(), searches)
    return Case(stored, rng.random() < (1 + chance) / 2 - 0.1, 300.0, 10.0)


def _sample(item: str, draw: int, kind: Kind, answer: str, score: float | None, tokens: int) -> Sample:
    costs = {"tokens": tokens, "prefill": 10, "prompt": 10, "scorer_tokens": 0, "scorer_prefill": 0, "pages": 4}
    rest = {"flops": 14.0 + tokens, "share": 0.0, "stopped_by": "done", "cut": False, "oracle": False}
    return Sample(item, ATTEMPT, "{}", draw, 0, kind, answer, answer, score, **costs, **rest)  # type: ignore[arg-type]


def _mistakes(name: str) -> float:
    """The share of wrong steps in the lessons of a model of LM-T."""
    return float(fixture_recipe(name).lessons.settings["mistake"])


CLAIM = Claim(
    ROW.id,
    ROW.number,
    "A probe of four attempts tells how hard a question is; what follows it is read from a table made on other ones.",
    f"Best of {POOL} by the model's own verdict, plain and weighted; one plan for all; difficulties at random.",
    ("effect",),
    f"ARITH over its dial, {len(CELLS)} settings; LM-T in two sizes; no known answer but to judge. The large one was"
    f" taught more wrong steps than the small one ({_mistakes(LARGE):.0%} against {_mistakes(SMALL):.0%}): that is part"
    " of what decides between them.",
    run,
)
