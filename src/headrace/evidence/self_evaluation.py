"""What a model of LM-T knows of its own attempts, half-way and at the end: verdict, state and log-probability."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from headrace.engine.engine import Engine
from headrace.engine.sequence import Mark, SequenceHandle
from headrace.reason.evaluate import Design, evaluate
from headrace.reason.evaluation.filling import How
from headrace.reason.evaluation.probing import pool_of
from headrace.reason.evaluation.store import Sample, Store
from headrace.reason.intervals import Interval, bootstrap_weights, percentiles
from headrace.reason.tasks.arith import CHECK, VERDICTS
from headrace.reason.tasks.item import Item
from headrace.spec.sampling import Sampling

AT_ONCE = 32


class Pair(NamedTuple):
    """Half-way and at the end."""

    half: float
    end: float


@dataclass(frozen=True, slots=True)
class Looked:
    """One attempt. `tokens`: up to its half, which is a whole number of steps, and in all.

    `verdict`: P(yes) to the question the models were trained to answer; `logprob`: the mean over its tokens so far;
    `states` [2, hidden].
    """

    item: str
    right: bool
    tokens: tuple[int, int]
    verdict: Pair
    logprob: Pair
    states: np.ndarray


def attempts(engine: Engine, asked: Sequence[Item], each: int, temperature: float, seed: int) -> list[Sample]:
    """`each` attempts a question, by question and draw."""
    how = How(seed, Sampling(temperature=temperature), concurrency=AT_ONCE)
    with Store(None, {}) as store:
        asyncio.run(evaluate(engine, Design(asked, ("single",), samples=each), how, store))
        return pool_of(store)


def looks(engine: Engine, asked: Mapping[str, Item], samples: Sequence[Sample], steps: int, state: str) -> list[Looked]:
    """Looks at every attempt after half of `steps` lines and at its end."""

    async def work() -> list[Looked]:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(sample: Sample) -> Looked:
            async with gate:
                return await _look(engine, asked[sample.item], sample, steps // 2, state)

        return list(await asyncio.gather(*(one(sample) for sample in samples)))

    return asyncio.run(work())


async def _look(engine: Engine, item: Item, sample: Sample, lines: int, state: str) -> Looked:
    prompt, drawn = engine.encode(item.task.prompt()), list(sample.ids)
    tokenizer = engine.tokenizer
    assert tokenizer is not None
    breaks = [place for place, token in enumerate(drawn, 1) if b"\n" in tokenizer.token_bytes(token)]
    half = breaks[lines - 1] if len(breaks) >= lines else -(-len(drawn) // 2)
    said = len(drawn) - (drawn[-1] in tokenizer.eos)  # behind the end token it was never asked for its verdict
    async with await engine.open([*prompt, *drawn]) as sequence:
        states = await sequence.read(state, "all")
        verdicts = [await _verdict(sequence, len(prompt) + place) for place in (said, half)]
    async with await engine.open(prompt) as sequence:
        (logprobs,) = await sequence.score([drawn])
    at = [len(prompt) + place - 1 for place in (half, said)]
    means = Pair(math.fsum(logprobs[:half]) / half, math.fsum(logprobs) / len(drawn))
    return Looked(sample.item, sample.kind == "right", (half, len(drawn)), Pair(*verdicts[::-1]), means, states[at])


async def _verdict(sequence: SequenceHandle, length: int) -> float:
    """P(yes) after `length` tokens, on a line of its own."""
    mark = sequence.mark()
    sequence.rewind(Mark(sequence.id, length, mark.branch, mark.forks))
    last = sequence._engine.tokenizer.token_bytes(sequence.tokens[-1])  # type: ignore[union-attr]
    await sequence.append(CHECK if last.endswith(b"\n") else "\n" + CHECK)
    (yes,), (no,) = await sequence.score(list(VERDICTS))
    return 1 / (1 + math.exp(min(no - yes, 700.0)))


def auc_gain(one: np.ndarray, other: np.ndarray, right: np.ndarray, resamples: int = 500) -> tuple[float, Interval]:
    """AUC of `one` minus that of `other`, all [questions, attempts], and its 95 % interval; questions are resampled."""
    drawn = np.repeat(bootstrap_weights(len(right), resamples), right.shape[1], axis=1)
    whole = np.ones((1, right.size))
    aucs = [np.r_[_aucs(scores, right, whole), _aucs(scores, right, drawn)] for scores in (one, other)]
    gains = aucs[0] - aucs[1]
    return float(gains[0]), percentiles(gains[1:])


def _aucs(scores: np.ndarray, right: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """One AUC a row of weights [resamples, attempts], ties counting half."""
    order = np.argsort(scores, axis=None, kind="stable")
    ranked, good = scores.ravel()[order], right.ravel()[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    found = []
    for row in weights[:, order]:
        ours, others = np.add.reduceat(row * good, starts), np.add.reduceat(row * ~good, starts)
        found.append(ours @ (np.cumsum(others) - others / 2) / max(ours.sum() * others.sum(), 1e-9))
    return np.array(found)
