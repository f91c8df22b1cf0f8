"""Questions about sets: likelihoods asked in parallel, summed outside the model."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import get_args

from headrace.reason import operators
from headrace.reason.choices import Options
from headrace.reason.operators import Unreadable
from headrace.reason.run import Run
from headrace.reason.strategy import strategy
from headrace.reason.thoughts import Sum, Think, Thought, normalised
from headrace.spec.errors import InvalidRequest


@strategy("thinksum", rule="score", needs=("choices", "think"), paper="2210.01293")
async def thinksum(run: Run, how: str = "mixture", examples: int = 4) -> None:
    """Scores all continuations of all contexts in one batch and adds their probabilities up: mixture, product, max.

    Nothing is drawn but, where the task asks for it, a list of `examples`; the kind stands for itself where the
    list cannot be read. Where the budget does not pay for
    every thought, the question is answered directly: half a sum is no sum.
    """
    if how not in get_args(Sum):
        raise InvalidRequest(f"how={how!r} is no sum; give one of {', '.join(get_args(Sum))}.", "strategy")
    asked: Options = run.task.meta["choices"]
    think: Think = run.task.meta["think"]
    root = await run.open()
    listed = await operators.listing(run, think.kind, examples) if think.kind else []
    found = await likelihoods(run, think.thoughts([] if isinstance(listed, Unreadable) else listed))
    if found is None:
        await run.extend_many([root])
        await run.finish([root], origin="direct")
        return
    shares = normalised(think.weigh(found, how))  # type: ignore[arg-type]
    best = shares.index(max(shares))
    run.journal.note("summed", shares=shares)
    await root.append(f"Answer: {asked.letters[best]}")
    (candidate,) = await run.finish([root], origin="summed")
    candidate.score = shares[best]


async def likelihoods(run: Run, thoughts: Sequence[Thought]) -> list[list[float]] | None:
    """The log-probability of every continuation of every thought; None where the budget ended before the last."""
    nodes = [await run.open(thought.context) for thought in thoughts]
    try:
        if any(node.ending is not None for node in nodes):
            return None
        asked = zip(nodes, thoughts, strict=True)
        found = await asyncio.gather(*(node.score(thought.continuations, ahead=True) for node, thought in asked))
    finally:
        for node in nodes:
            node.drop()
    sums = [[math.fsum(logprobs) for logprobs in row] for row in found if row is not None]
    return sums if len(sums) == len(thoughts) else None
