"""`evaluate`: strategies and budgets over the questions of a task, from stored samples to a table with intervals.

Strategies over independent attempts are served by one pool of them, which any scorer can look at afterwards; all
others run live, once a question and budget. Whatever is in the store already is not run again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from headrace.engine.surface import Surface
from headrace.reason.evaluation.curves import curves, scorer_quality
from headrace.reason.evaluation.equal import VOTES, Votes
from headrace.reason.evaluation.filling import How, Job, Report, fill
from headrace.reason.evaluation.pooled import ATTEMPT, Outcome, Question, needed, orders_of, outcomes, servable
from headrace.reason.evaluation.scoring import Look
from headrace.reason.evaluation.store import KINDS, Key, Sample, ScoringKey, Store, budget_key
from headrace.reason.evaluation.table import Row, comparisons, dominated, outcome_of, same_budget
from headrace.reason.scorers import check_scorer
from headrace.reason.scorers.checker import Checker
from headrace.reason.solve import beyond_temperature
from headrace.reason.strategy import Plan, Repeated, Step, parse
from headrace.reason.tasks.item import Item
from headrace.spec.budget import Budget
from headrace.spec.errors import InvalidRequest
from headrace.spec.reasoning import Scored

BASELINE = "self_consistency"


@dataclass(frozen=True, slots=True)
class Design:
    """What is compared. `samples`: the pool's attempts a question; 0 takes as many as the strategies need.

    `repeats`: live runs a question, each with a seed of its own.
    """

    items: Sequence[Item]
    strategies: Sequence[str]
    budgets: Sequence[Budget] = (Budget(),)
    samples: int = 0
    repeats: int = 1


def settings(engine: Surface, task: str, how: How, design: Design) -> dict[str, Any]:
    """What every stored sample depends on."""
    endings = {item.task.ending.tokens for item in design.items}
    return {
        "model": engine.model_name,
        "profile": engine.guarantees.profile,
        "task": task,
        "seed": how.seed,
        "temperature": how.sampling.temperature,
        **beyond_temperature(how.sampling),
        "max_tokens": max((tokens for tokens in endings if tokens is not None), default=None),
    }


async def evaluate(
    engine: Surface, design: Design, how: How, store: Store, report: Report | None = None
) -> dict[str, Any]:
    """Fills the store and returns all figures, ready for JSON.

    Raises InvalidRequest before anything runs, and what the engine raises; what is stored stays.
    """
    plans = checked(design, how)
    check_scorer(how.scorer, engine)
    await fill(engine, jobs(design, plans, how), store, how, report)
    return await asyncio.to_thread(figures, store, design, plans, how)


def checked(design: Design, how: How) -> list[Plan]:
    """The strategies, parsed. Raises InvalidRequest for what cannot be carried out."""
    if not design.items or not design.strategies or not design.budgets:
        raise InvalidRequest("There is nothing to evaluate; give questions, a strategy and a budget.", "strategy")
    plans = [parse(text) for text in dict.fromkeys(design.strategies)]
    for plan in plans:
        if "scorer" in plan.needs and how.scorer is None:
            raise InvalidRequest(f"{plan} needs a scorer; add --scorer judge.", "scorer")
        for need in ("choices", "examples"):
            if need in plan.needs and any(need not in item.task.meta for item in design.items):
                raise InvalidRequest(f"{plan} needs a task with {need}; choose another task or strategy.", "strategy")
        if design.samples and servable(plan, Budget()) and needed(_step(plan)) > design.samples:
            raise InvalidRequest(f"{plan} needs --samples {needed(_step(plan))} or more.", "samples")
    return plans


def jobs(design: Design, plans: Sequence[Plan], how: How) -> list[Job | Look]:
    """The pool, the scorer's looks at it, then what has to run live, a strategy and budget after the other."""
    draws = range(_pool_size(design, plans))
    found: list[Job | Look] = [Job(item, ATTEMPT, Budget(), draw) for item in design.items for draw in draws]
    if how.scorer is not None:  # a draw of every question first: the later ones find their prompts computed
        found += [Look(item, draw, how.scorer) for draw in draws for item in design.items]
    live = [(plan, budget) for plan in plans for budget in design.budgets if not servable(plan, budget)]
    for plan, budget in live:
        scorer = how.scorer if _asks(plan) else None
        found += [Job(item, str(plan), budget, draw, scorer) for item in design.items for draw in range(design.repeats)]
    return found


def _asks(plan: Plan) -> bool:
    """Whether it uses a scorer where there is one."""
    if isinstance(plan, Step):
        return "scorer" in plan.needs or plan.strategy.name == "auto"
    if isinstance(plan, Repeated):
        return _asks(plan.plan)
    return _asks(plan.left) or _asks(plan.right)


def figures(store: Store, design: Design, plans: Sequence[Plan], how: How) -> dict[str, Any]:
    """Everything that the stored samples say about this design."""
    size = _pool_size(design, plans)
    questions = [_question(store, item, size, how) for item in design.items] if size else []
    rows = [_row(store, design, how, questions, plan, budget) for budget in design.budgets for plan in plans]
    plain, oracle = [row for row in rows if not row.oracle], [row for row in rows if row.oracle]
    baseline = VOTES if questions else _baseline([row.strategy for row in plain])
    against = Votes(questions).beside if questions else same_budget(plain, baseline)
    return {
        "settings": store.settings,
        "scorer": how.scorer.name if how.scorer is not None else None,
        "questions": len(design.items),
        "baseline": baseline,
        "rows": _told(plain),
        "comparisons": [one.as_json() for one in comparisons(plain, against)],
        "oracle": _told(oracle),
        "pool": _pool_figures(questions, size, how) if questions else None,
    }


def _told(rows: Sequence[Row]) -> list[dict[str, Any]]:
    beaten = dominated(rows)
    return [
        row.as_json() | {"dominated_by": _name(rows[beaten[index]]) if index in beaten else None}
        for index, row in enumerate(rows)
    ]


def _baseline(strategies: Sequence[str]) -> str:
    """Without a pool: self-consistency where it is among them, else the first."""
    return next((name for name in strategies if name.startswith(BASELINE)), next(iter(strategies), ""))


def _pool_figures(questions: Sequence[Question], size: int, how: How) -> dict[str, Any]:
    samples = [sample for question in questions for sample in question.samples]
    return {
        "samples": size,
        "classes": {kind: sum(sample.kind == kind for sample in samples) / len(samples) for kind in KINDS},
        "tokens": sum(sample.tokens for sample in samples) / len(samples),
        "curves": curves(questions, how.scorer is not None),
        "scorer": {"name": how.scorer.name, "quality": scorer_quality(questions)} if how.scorer else None,
    }


def _row(store: Store, design: Design, how: How, questions: Sequence[Question], plan: Plan, budget: Budget) -> Row:
    scorer = how.scorer if _asks(plan) else None
    oracle = scorer is not None and scorer.oracle
    if servable(plan, budget):
        orders = orders_of(len(questions[0].samples), how.seed)
        found: Mapping[str, Sequence[Outcome]] = {
            question.item: outcomes(_step(plan), question, budget, orders) for question in questions
        }
        return Row(str(plan), str(budget), "pool", oracle, found)
    draws, name = range(design.repeats), None if scorer is None else scorer.name
    live = {
        item.id: [outcome_of(store.samples[Key(item.id, str(plan), budget_key(budget), draw, name)]) for draw in draws]
        for item in design.items
    }
    return Row(str(plan), str(budget), "live", oracle, live)


def _question(store: Store, item: Item, size: int, how: How) -> Question:
    draws, budget = range(size), budget_key(Budget())
    samples: list[Sample] = [store.samples[Key(item.id, ATTEMPT, budget, draw)] for draw in draws]
    names = [] if how.scorer is None else [how.scorer.name]
    scorings = [store.scorings[ScoringKey(item.id, draw, name)] for name in names for draw in draws]
    sound = how.scorer is not None and how.scorer.sound
    return Question.of(item.id, samples, item.task.answers, scorings, sound)


def _pool_size(design: Design, plans: Sequence[Plan]) -> int:
    wanted = [needed(_step(plan)) for plan in plans for budget in design.budgets if servable(plan, budget)]
    return max(design.samples, *wanted, 0) if wanted or design.samples else 0


def _step(plan: Plan) -> Step:
    assert isinstance(plan, Step)
    return plan


def _name(row: Row) -> str:
    return row.strategy if row.budget == "no bound" else f"{row.strategy} at {row.budget}"


def oracle_scorer(items: Sequence[Item], noise: float = 0.0, seed: int = 0) -> Checker:
    """A scorer that knows the answers, and the steps where the task does. Its runs never stand among the others."""
    known = {item.task.question: item for item in items}

    def check(scored: Scored) -> float:
        item = known[scored.question]
        if item.so_far is not None:
            return item.so_far(scored.text)
        answer = item.task.answers.extract(scored.text)
        return float(answer is not None and item.verdict(answer) == "right")

    name = f"oracle(noise={noise:g})" if noise else "oracle"
    return replace(Checker(check, noise, seed), name=name)
