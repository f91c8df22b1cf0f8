"""Independent attempts, and what to make of them."""

from __future__ import annotations

import asyncio

from headrace.reason.agreement import betastop
from headrace.reason.choose import tally
from headrace.reason.node import Node
from headrace.reason.run import Run
from headrace.reason.strategy import strategy
from headrace.spec.reasoning import Candidate


async def attempts(run: Run, root: Node, count: int) -> list[Node]:
    """`count` whole attempts on forks of `root`."""
    nodes = root.fork(count)
    await run.extend_many(nodes)
    return nodes


@strategy("single", rule="first")
async def single(run: Run) -> None:
    """One attempt."""
    root = await run.open()
    await run.extend_many([root])
    await run.finish([root])


@strategy("self_consistency", rule="vote", paper="2203.11171")
async def self_consistency(run: Run, n: int = 8) -> None:
    """n attempts; the answer that most of them give."""
    await run.finish(await attempts(run, await run.open(), n))


@strategy("best_of_n", rule="score", needs=("scorer",), paper="2408.03314")
async def best_of_n(run: Run, n: int = 8, wave: int = 4) -> None:
    """n attempts; the one that the scorer likes best. With a sound scorer in waves, until one is proved."""
    root, size = await run.open(), wave if run.sound else n
    for start in range(0, n, size):
        if start and run.exhausted:
            return
        made = await scored_attempts(run, root, min(size, n - start))
        if run.sound and any(proved(candidate) for candidate in made):
            return


def proved(candidate: Candidate) -> bool:
    """Whether a sound scorer's verdict on it is a proof: a text that was cut, or says no answer, proves none."""
    return candidate.score is not None and candidate.score >= 1 and candidate.finished and candidate.answer is not None


@strategy("weighted_vote", rule="weighted", needs=("scorer",), paper="2408.03314")
async def weighted_vote(run: Run, n: int = 8) -> None:
    """n attempts; the answer whose attempts have the largest sum of scores."""
    await scored_attempts(run, await run.open(), n)


async def scored_attempts(run: Run, root: Node, count: int) -> list[Candidate]:
    nodes = await attempts(run, root, count)
    await run.scores(nodes)
    return await run.finish(nodes)


@strategy("adaptive_consistency", rule="vote", paper="2305.11860")
async def adaptive_consistency(run: Run, n: int = 16, wave: int = 4, confidence: float = 0.95) -> None:
    """Up to n attempts, in waves; stops when the leading answer would stay ahead with that probability.

    Decides on attempts in the order they were started, never on which finished first: short answers would win.
    """
    root, made = await run.open(), list[Candidate]()
    while len(made) < n and not run.exhausted:
        made += await run.finish(await attempts(run, root, min(wave, n - len(made))))
        votes = await asyncio.to_thread(tally, made, False, run.task.answers)
        if betastop(votes.weights.values(), confidence):
            return
