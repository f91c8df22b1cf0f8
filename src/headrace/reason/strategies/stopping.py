"""Attempts that end early: pruned half-way, stopped once sure, or cut when they lose confidence."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from headrace.reason.choose import tally
from headrace.reason.confidence import lowest_confidence
from headrace.reason.node import Node
from headrace.reason.run import Run
from headrace.reason.strategies.beams import top
from headrace.reason.strategies.sampling import attempts
from headrace.reason.strategy import strategy
from headrace.spec.reasoning import AnswerSpace, Candidate
from headrace.spec.sampling import Sampling, Stop


@strategy("early_prune", rule="score", needs=("scorer",), paper="2410.02725")
async def early_prune(run: Run, n: int = 8, at: int = 64, keep: float = 0.5) -> None:
    """n attempts up to `at` tokens; the model's own estimate decides which share of them is finished."""
    nodes = (await run.open()).fork(n)
    await run.extend_many(nodes, _part(run, 0, at))
    for node in nodes:
        node.end_where(run.task.ending)
    values = await run.scores(nodes)
    chosen = top(values, max(round(keep * n), 1))
    run.journal.note("pruned", nodes=[node.id for index, node in enumerate(nodes) if index not in chosen])
    for index, node in enumerate(nodes):
        if index not in chosen:
            node.drop()
    kept = [nodes[index] for index in sorted(chosen)]
    await run.extend_many(kept, _rest(run, at))
    await run.scores(kept)
    await run.finish(kept)


def _rest(run: Run, spent: int) -> Stop:
    whole = run.task.ending.tokens
    return run.task.ending if whole is None else replace(run.task.ending, tokens=max(whole - spent, 0))


def _part(run: Run, spent: int, most: int) -> Stop:
    """The next `most` tokens of an attempt, or what is left of it."""
    rest = _rest(run, spent)
    return replace(rest, tokens=most if rest.tokens is None else min(most, rest.tokens))


@strategy("adaptive_best_of_n", rule="score", needs=("scorer",), paper="2410.02725")
async def adaptive_best_of_n(run: Run, n: int = 8, enough: float = 0.9) -> None:
    """Attempts one after another until one's score reaches `enough`; the first is greedy, later ones are warmer."""
    root = await run.open()
    for k in range(n):
        (node,) = root.fork(1)
        warm = replace(run.sampling, temperature=run.sampling.temperature * (1 - 0.5**k))
        await run.extend_many([node], sampling=warm)
        (value,) = await run.scores([node])
        await run.finish([node])
        if value >= enough or run.exhausted:
            return


@strategy("probe_until_sure", rule="vote", paper="2412.20993")
async def probe_until_sure(run: Run, every: int = 32, agree: int = 2, cue: str = "\n\nFinal answer:") -> None:
    """Asks a fork for the answer every few tokens and stops once `agree` answers in a row are equal (Dynasor)."""
    node, answers = await run.open(), list[str | None]()
    while node.ending is None:
        await run.extend_many([node], _part(run, node.drawn, every))
        node.end_where(run.task.ending)
        if node.ending is not None:
            break
        (probe,) = node.fork(1)
        if await probe.append(cue):
            await run.extend_many([probe], Stop(tokens=16, text=("\n",)))
        answers.append(await asyncio.to_thread(run.task.answers.extract, probe.text))
        if len(answers) >= agree and await asyncio.to_thread(_all_equal, answers[-agree:], run.task.answers):
            node.drop()
            await run.finish([probe], origin="probe")
            return
        probe.drop()
    await run.finish([node])


def _all_equal(answers: Sequence[str | None], space: AnswerSpace) -> bool:
    first = answers[0]
    return first is not None and all(other is not None and space.equal(first, other) for other in answers)


@strategy("deepconf", rule="vote", paper="2508.15260")
async def deepconf(
    run: Run,
    n: int = 16,
    warm: int = 4,
    keep: float = 0.5,
    window: int = 32,
    every: int = 16,
    consensus: float = 0.95,
) -> None:
    """Warm-up attempts set a threshold on the lowest confidence of any window; later ones that fall below are cut.

    They follow in waves as wide as the warm-up, until one answer has the share `consensus` of all confidence:
    waves, because an attempt that ends first is short rather than right. A token without alternatives counts as
    unknown, never as certain. A warm-up of one agrees with itself: it is the answer, unless it says none.
    """
    sampling = replace(run.sampling, logprobs=5)
    root = await run.open()
    first = root.fork(min(warm, n))
    drawn = await run.extend_many(first, sampling=sampling)
    lowest = [lowest_confidence(d.confidences, window) for d in drawn]
    found = [value for value in lowest if value is not None]
    made, left = await run.finish(first, origin="warm"), n - len(first)
    for candidate, value in zip(made, lowest, strict=True):
        candidate.weight = value or 0.0
    threshold = float(np.quantile(found, 1 - keep)) if found else 0.0
    while left > 0 and not run.exhausted and await _share(run, made) < consensus:
        wave = root.fork(min(len(first), left))
        made, left = made + await _watched(run, wave, sampling, threshold, window, every), left - len(wave)


async def _share(run: Run, made: Sequence[Candidate]) -> float:
    """The leading answer's share of all weight; an attempt without an answer votes for none."""
    votes = await asyncio.to_thread(tally, made, False, run.task.answers)
    whole = math.fsum(candidate.weight for candidate in made)
    return max(votes.weights.values(), default=0.0) / whole if whole else 0.0


async def _watched(
    run: Run, alive: list[Node], sampling: Sampling, threshold: float, window: int, every: int
) -> list[Candidate]:
    """The attempts that kept their confidence to the end; the others are dropped on the way."""
    made: list[Candidate] = []
    seen: dict[str, list[float]] = {node.id: [] for node in alive}
    while alive:
        pieces = await run.extend_many(alive, _part(run, alive[0].drawn, every), sampling)
        rest = []
        for node, piece in zip(alive, pieces, strict=True):
            seen[node.id] += piece.confidences
            node.end_where(run.task.ending)
            lowest = lowest_confidence(seen[node.id], window)
            if lowest is not None and lowest < threshold:
                run.journal.note("pruned", nodes=[node.id])
                node.drop()
            elif node.ending is not None:
                made += await run.finish([node])
                made[-1].weight = lowest or 0.0
            else:
                rest.append(node)
        alive = rest
    return made


@strategy("resample_unsure", rule="score", needs=("scorer",))
async def resample_unsure(run: Run, n: int = 4, threshold: float = 0.5) -> None:
    """A first attempt; more of them only where its score is below the threshold."""
    nodes = await attempts(run, root := await run.open(), 1)
    (value,) = await run.scores(nodes)
    await run.finish(nodes)
    if value < threshold and not run.exhausted:
        more = await attempts(run, root, n - 1)
        await run.scores(more)
        await run.finish(more)
