"""A question, a strategy and a budget in; an answer with its confidence, its price and its trace out."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from headrace.engine.surface import Surface
from headrace.reason.account import Account, Clock
from headrace.reason.answers import answer_space
from headrace.reason.choose import groups
from headrace.reason.cost import TokenCost
from headrace.reason.intervals import wilson
from headrace.reason.journal import Journal
from headrace.reason.purse import Purse
from headrace.reason.run import Run
from headrace.reason.scorers import check_scorer
from headrace.reason.strategy import Plan, parse
from headrace.reason.task import Task
from headrace.spec.budget import Budget, Spend
from headrace.spec.errors import InvalidRequest
from headrace.spec.events import EventLog
from headrace.spec.reasoning import AnswerSpace, Candidate, Scorer
from headrace.spec.sampling import Sampling, Stop
from headrace.spec.trace import FORMAT, Trace


@dataclass(frozen=True, slots=True)
class Result:
    """`answer` None: nothing could be read from `text` ("unparsed").

    `confidence`: the share of all candidates' answers that equal this one; `interval`: its 95 % Wilson interval,
    which says how steady the vote is, not how often such answers are right. `stopped_by`: done, or the bound.
    """

    answer: str | None
    text: str
    confidence: float
    interval: tuple[float, float]
    strategy: str
    stopped_by: str
    usage: dict[str, Any]
    trace_id: str
    seed: int
    candidates: list[Candidate] = field(repr=False)
    trace: Trace = field(repr=False, compare=False)
    oracle: bool = False

    def as_json(self) -> dict[str, Any]:
        return {
            "answer": self.answer,
            "text": self.text,
            "confidence": round(self.confidence, 6),
            "interval": [round(bound, 6) for bound in self.interval],
            "strategy": self.strategy,
            "stopped_by": self.stopped_by,
            "seed": self.seed,
            "usage": self.usage,
            "trace_id": self.trace_id,
            **({"oracle": True} if self.oracle else {}),
        }


@dataclass(frozen=True, slots=True)
class Order:
    """Everything about a run but the engine and the question."""

    strategy: str = "single"
    budget: Budget = field(default_factory=Budget)
    scorer: Scorer | None = None
    seed: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    principal: Mapping[str, Any] = field(default_factory=dict)
    trace: Path | None = None
    resume: bool = False
    clock: Clock = time.monotonic

    def plan(self, task: Task) -> Plan:
        """The strategy, read and checked against the task. Raises InvalidRequest."""
        plan = parse(self.strategy)
        if "scorer" in plan.needs and self.scorer is None:
            raise InvalidRequest(f"{plan} needs a scorer; give judge, or choose self_consistency.", "scorer")
        for need in plan.needs - {"scorer"}:
            if need not in task.meta:
                raise InvalidRequest(f"{plan} needs a task with {need}; use it in headrace eval.", "strategy")
        if self.resume and self.trace is None:
            raise InvalidRequest("There is no trace to resume; give it with --trace.", "trace")
        return plan


async def solve(engine: Surface, task: Task, order: Order, trace: Trace | None = None) -> Result:
    """Runs a strategy on a live engine. Raises InvalidRequest before anything runs, and what the engine raises.

    With `order.resume` the run continues the one that wrote `order.trace`, to the identical result.
    """
    plan = order.plan(task)
    check_scorer(order.scorer, engine)
    earlier = Trace.load(order.trace) if order.resume and order.trace is not None else None
    seed = order.seed if order.seed is not None else earlier.header["seed"] if earlier else secrets.randbits(53)
    facts = _header(engine, task, plan, order, seed)
    if earlier is not None:
        _same_run(earlier.header, facts)
    trace, caught_up = trace or Trace(order.trace), None
    if earlier is not None and order.trace is not None:
        trace, caught_up = _continued(order.trace)
    trace.add("run", **facts)
    account = Account(order.budget, order.clock)
    purse = Purse(account, TokenCost.of(engine.spec), engine.events)
    journal = Journal(trace, earlier, caught_up)
    run = Run(engine, engine.context, task, purse, journal, seed, order.sampling, order.scorer, order.principal)
    run.scored = order.scorer is not None
    return await _carried_out(run, plan, order)


def _continued(path: Path) -> tuple[Trace, Callable[[], None]]:
    """A new trace beside the old one, and what puts it in its place once it has everything that the old one had."""
    part = path.with_name(path.name + ".part")
    return Trace(part), lambda: os.replace(part, path)


async def replay(trace: Trace, answers: AnswerSpace | None = None, meta: Mapping[str, Any] | None = None) -> Result:
    """The same result from the trace alone, without a model. Raises InvalidRequest where the trace is not whole.

    `answers`: the space that the run had, where it was not one of those with a name. `meta`: what its task handed
    over beside the question, where the strategy needs that.
    """
    facts = trace.header
    plan = parse(facts["strategy"])
    if missing := sorted(plan.needs - {"scorer"} - (meta or {}).keys()):
        raise InvalidRequest(f"The trace of {plan} does not hold the task's {missing[0]}; give it as meta.", "trace")
    step, ending = (_stop(facts[name]) for name in ("step_stop", "ending_stop"))
    space = answers or answer_space(facts["answers"])
    task = Task(facts["question"], space, step, ending, facts["chat"], tuple(facts["before"]), meta or {})
    order = Order(sampling=Sampling(temperature=facts["temperature"]))
    copy = Trace()
    copy.add("run", **facts)
    cost = TokenCost(*facts["cost"])
    purse = Purse(Account(Budget(**facts["budget"]), lambda: 0.0), cost, EventLog())
    run = Run(None, facts["context"], task, purse, Journal(copy, trace), facts["seed"], order.sampling, order.scorer)
    run.scored = facts["scorer"] is not None
    return await _carried_out(run, plan, order)


async def _carried_out(run: Run, plan: Plan, order: Order) -> Result:
    trace = run.journal.trace
    try:
        with run.purse.watch():
            await plan.run(run)
        if not run.candidates:
            await run.finish(list(run.live.values())[:1])
        if not run.candidates:
            run.candidates.append(Candidate(0, "", "", None, finished=False))
        await run.show_best()
        result = await asyncio.to_thread(_result, run, plan, order)
        trace.add("result", **result.as_json())
        return result
    finally:
        run.close()
        trace.close()


def _result(run: Run, plan: Plan, order: Order) -> Result:
    best = run.best()
    assert best is not None
    account, trace = run.purse.account, run.journal.trace
    spend: Spend = account.spend
    spend.seconds, spend.cached = account.clock() - account.started, run.purse.cached
    agree, total = _agreement(run, best)
    stopped_by = f"budget:{account.met}" if account.met else "done"
    return Result(
        best.answer,
        best.text,
        agree,
        wilson(agree * total, total),
        str(plan),
        stopped_by,
        spend.as_usage(),
        run.journal.digest(),
        run.seed,
        run.candidates,
        trace,
        order.scorer is not None and order.scorer.oracle,
    )


def _agreement(run: Run, best: Candidate) -> tuple[float, float]:
    """The share of the candidates' weight that gives the best one's answer, and their effective number (Σw)² / Σw²."""
    count = len(run.candidates)
    if best.answer is None:
        return 0.0, count
    leads = groups([candidate.answer for candidate in run.candidates], run.task.answers)
    weights = [candidate.weight for candidate in run.candidates]
    same = sum(weight for lead, weight in zip(leads, weights, strict=True) if lead == leads[best.id])
    if not sum(weights):
        return 0.0, count
    return min(same / sum(weights), 1.0), sum(weights) ** 2 / sum(weight * weight for weight in weights)


def _header(engine: Surface, task: Task, plan: Plan, order: Order, seed: int) -> dict[str, Any]:
    budget, cost, adapter = order.budget, TokenCost.of(engine.spec), order.principal.get("adapter")
    return {
        "format": FORMAT,
        "strategy": str(plan),
        "seed": seed,
        "budget": {name: getattr(budget, name) for name in budget.__slots__},
        "question": task.question,
        "chat": task.chat,
        "before": [dict(message) for message in task.before],
        "answers": task.answers.name,
        "step_stop": asdict(task.step),
        "ending_stop": asdict(task.ending),
        "scorer": order.scorer.name if order.scorer else None,
        "model": engine.model_name,
        "profile": engine.guarantees.profile,
        "adapter": [adapter, order.principal.get("adapter_scale", 1.0)] if adapter else None,
        "temperature": order.sampling.temperature,
        "context": engine.context,
        "cost": [cost.fixed, cost.context],
    }


def _stop(told: Mapping[str, Any]) -> Stop:
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in told.items()}
    return Stop(**fields)


def _same_run(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name, value in now.items():
        if earlier.get(name) != json.loads(json.dumps(value)):
            raise InvalidRequest(
                f"The trace was written with {name} {earlier.get(name)!r}, this run has {value!r}; "
                f"resume it as it began.",
                "trace",
            )
