"""Runs what a store does not have yet, several questions at a time on one engine."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from typing import Any

from headrace.engine.surface import Surface
from headrace.reason.account import Clock
from headrace.reason.evaluation.clock import SharedClock
from headrace.reason.evaluation.pooled import ATTEMPT
from headrace.reason.evaluation.scoring import Look, fitted, scored
from headrace.reason.evaluation.store import Key, Kind, Record, Sample, Store, budget_key
from headrace.reason.solve import Order, Result, solve
from headrace.reason.tasks.item import Item
from headrace.spec.budget import Budget
from headrace.spec.errors import ContextExceeded, InvalidRequest, PagesExhausted
from headrace.spec.reasoning import Scorer
from headrace.spec.sampling import Sampling

Report = Callable[[str, int, int], None]
"""(what, runs done, runs in all)"""


@dataclass(frozen=True, slots=True)
class Job:
    """One run to be made. `scorer`: what its strategy asks."""

    item: Item
    strategy: str
    budget: Budget
    draw: int
    scorer: Scorer | None = None

    @property
    def key(self) -> Key:
        name = None if self.scorer is None else self.scorer.name
        return Key(self.item.id, self.strategy, budget_key(self.budget), self.draw, name)

    @property
    def what(self) -> str:
        return "attempts" if self.strategy == ATTEMPT else self.strategy


@dataclass(frozen=True, slots=True)
class How:
    """What all runs share. `concurrency`: runs in flight; no result depends on it."""

    seed: int = 0
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.8))
    scorer: Scorer | None = None
    concurrency: int = 16
    clock: Clock = time.monotonic


async def fill(
    engine: Surface, jobs: Sequence[Job | Look], store: Store, how: How, report: Report | None = None
) -> None:
    """Carries out every job that the store does not have; looks wait for the jobs before them, and later jobs for them.

    Raises what a run raises, with all finished ones stored.
    """
    missing = [job for job in jobs if not store.has(job.key)]
    total, shared = len(jobs), SharedClock(how.clock)
    done = total - len(missing)

    async def work(waiting: Iterator[Job | Look]) -> None:
        nonlocal done
        for job in waiting:
            if report is not None:
                report(job.what, done, total)
            store.add(await _record(engine, job, store, how, shared))
            done += 1
            if report is not None:
                report(job.what, done, total)

    for _, stage in groupby(missing, key=type):
        waiting = iter(list(stage))
        await _all([work(waiting) for _ in range(how.concurrency)])


async def _all(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Runs them side by side; where one fails, none goes on."""
    workers = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def _record(engine: Surface, job: Job | Look, store: Store, how: How, shared: SharedClock) -> Record:
    if isinstance(job, Job):
        return await carried_out(engine, job, how, shared)
    sample = store.samples[Key(job.item.id, ATTEMPT, budget_key(Budget()), job.draw)]
    return await scored(engine, job, sample, how.sampling, shared)


async def carried_out(engine: Surface, job: Job, how: How, shared: SharedClock) -> Sample:
    """One run. One that does not fit (its question alone is beyond a bound) is a sample of kind budget."""
    seed = seed_of(how.seed, job.item.id, job.draw)
    order = Order(job.strategy, job.budget, job.scorer, seed, how.sampling, clock=how.clock)
    entered = shared.enter()
    try:
        result: Result | None = await solve(engine, fitted(job.item.task, engine), order)
    except (ContextExceeded, PagesExhausted):
        result = None
    except InvalidRequest as error:
        if error.field != "budget":
            raise
        result = None
    finally:
        share = shared.leave(entered)
    if result is None:
        return _nothing(job, seed, share)
    return await asyncio.to_thread(_sample, job, seed, share, result)


def seed_of(seed: int, item: str, draw: int) -> int:
    """The seed of one run: the same for every strategy and budget, so that they are compared on like noise."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{item}/{draw}".encode()).digest()[:8], "big") >> 11


def _nothing(job: Job, seed: int, share: float) -> Sample:
    return Sample(
        *job.key[:4],
        seed=seed,
        kind="budget",
        answer=None,
        text="",
        score=None,
        tokens=0,
        prefill=0,
        prompt=0,
        scorer_tokens=0,
        scorer_prefill=0,
        pages=0,
        flops=0.0,
        share=round(share, 6),
        stopped_by="budget:question",
        cut=True,
        oracle=job.scorer is not None and job.scorer.oracle,
        scorer=job.key.scorer,
    )


def _sample(job: Job, seed: int, share: float, result: Result) -> Sample:
    usage = result.usage
    chosen = next(c for c in result.candidates if (c.text, c.answer) == (result.text, result.answer))
    limit = job.item.task.ending.tokens
    cut = not chosen.finished or (limit is not None and chosen.tokens >= limit)
    drawn = (event.data["tokens"] for event in result.trace.of("extend") if event.node == chosen.node)
    return Sample(
        *job.key[:4],
        seed=seed,
        kind=kind_of(job.item, result, cut),
        answer=result.answer,
        text=result.text,
        score=chosen.score,
        tokens=usage["completion"],
        prefill=usage["prompt"],
        prompt=next((len(event.data["tokens"]) for event in result.trace.of("open")), 0),
        scorer_tokens=usage["scorer"]["completion"],
        scorer_prefill=usage["scorer"]["prompt"],
        pages=usage["kv_peak_pages"],
        flops=usage["flops"],
        share=round(share, 6),
        stopped_by=result.stopped_by,
        cut=cut,
        oracle=result.oracle,
        scorer=job.key.scorer,
        ids=tuple(chain.from_iterable(drawn)) if job.strategy == ATTEMPT else (),
    )


def kind_of(item: Item, result: Result, cut: bool) -> Kind:
    """Right is right however it ended; what a bound cut is never called wrong or unparsed."""
    verdict = None if result.answer is None else item.verdict(result.answer)
    if verdict == "right":
        return "right"
    if verdict == "undecided" or (cut and result.stopped_by == "budget:seconds"):
        return "timeout"
    if cut:
        return "budget"
    return "unparsed" if verdict is None else "wrong"
