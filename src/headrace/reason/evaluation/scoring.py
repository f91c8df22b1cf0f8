"""A scorer's look at an attempt that was drawn earlier: its tokens are given again, and nothing is drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace

from headrace.engine.surface import Surface
from headrace.reason.account import Account
from headrace.reason.cost import TokenCost
from headrace.reason.evaluation.clock import SharedClock
from headrace.reason.evaluation.store import Sample, Scoring, ScoringKey
from headrace.reason.journal import Journal
from headrace.reason.node import Node
from headrace.reason.purse import Purse
from headrace.reason.run import Run
from headrace.reason.task import Task
from headrace.reason.tasks.item import Item
from headrace.spec.budget import Budget
from headrace.spec.errors import InvalidRequest
from headrace.spec.reasoning import Scorer
from headrace.spec.sampling import Sampling
from headrace.spec.trace import Trace


@dataclass(frozen=True, slots=True)
class Look:
    """One attempt of the pool to be scored."""

    item: Item
    draw: int
    scorer: Scorer

    @property
    def key(self) -> ScoringKey:
        return ScoringKey(self.item.id, self.draw, self.scorer.name)

    @property
    def what(self) -> str:
        return f"scores by {self.scorer.name}"


async def scored(engine: Surface, look: Look, sample: Sample, sampling: Sampling, shared: SharedClock) -> Scoring:
    """The score that a run with this scorer had given the attempt when it was drawn, bit for bit, and its cost.

    The sequence has the same tokens, so by the engine's contract the same state; the time until it is there again
    is not the scorer's. Raises InvalidRequest for an attempt that was stored without its tokens.
    """
    if sample.stopped_by == "budget:question":
        return Scoring(*look.key, None, 0, 0, 0, 0.0, 0.0)
    run = _run(engine, look, sample, sampling)
    try:
        with shared.timed():
            node = await attempt(run, sample, computed=look.scorer.kind != "exact")  # which reads the text alone
        with shared.timed() as share:
            await run.scores([node])
    finally:
        run.close()
    data = next(run.journal.trace.of("scores")).data
    costs = (data["drawn"], data["prefill"], data["pages"], data["flops"])
    return Scoring(*look.key, data["values"][0], *costs, share=round(share[0], 6))


async def attempt(run: Run, sample: Sample, computed: bool = True) -> Node:
    """The sequence of a stored attempt, in the tree as it was when it was drawn; `computed` now, else when needed.

    Raises InvalidRequest.
    """
    if sample.tokens and not sample.ids:
        raise InvalidRequest(
            f"The store has attempt {sample.draw} of {sample.item} without its tokens; give another --store.", "store"
        )
    root = await run.open(run.task.prompt())  # a given prompt is computed with the first verb that needs it
    (node,) = root.fork(1)
    if sample.ids:
        await node.append(sample.ids)
        if computed:
            await node.prefill()
        if sample.ids[-1] in end_tokens(run.running()) and sample.ids[-1] not in run.task.ending.token_ids:
            node.ending = "end"
    return node


def fitted(task: Task, engine: Surface) -> Task:
    """The task as this engine's model takes it: through the chat template where it has one."""
    chat = engine.tokenizer is not None and engine.tokenizer.chat_template is not None
    return task if chat else replace(task, chat=False)


def _run(engine: Surface, look: Look, sample: Sample, sampling: Sampling) -> Run:
    purse = Purse(Account(Budget(), lambda: 0.0), TokenCost.of(engine.spec), engine.events)
    task = fitted(look.item.task, engine)
    return Run(engine, engine.context, task, purse, Journal(Trace()), sample.seed, sampling, look.scorer)


def end_tokens(engine: Surface) -> set[int]:
    return {*engine.spec.eos, *(engine.tokenizer.eos if engine.tokenizer is not None else ())}
