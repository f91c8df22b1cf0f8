"""Runs what a store does not have yet, several questions at a time on one engine."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from headrace.engine.surface import Surface
from headrace.reason.account import Clock
from headrace.reason.evaluation.store import Key, Kind, Sample, Store, budget_key
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
    """One run to be made."""

    item: Item
    strategy: str
    budget: Budget
    draw: int

    @property
    def key(self) -> Key:
        return Key(self.item.id, self.strategy, budget_key(self.budget), self.draw)


@dataclass(frozen=True, slots=True)
class How:
    """What all runs share. `concurrency`: questions in flight; no result depends on it."""

    seed: int = 0
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.8))
    scorer: Scorer | None = None
    concurrency: int = 16
    clock: Clock = time.monotonic


class SharedClock:
    """Wall time divided among the runs that are in flight: it advances by 1/n a second while there are n."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._running, self._value, self._last = clock, 0, 0.0, clock()

    def enter(self) -> float:
        self._advance()
        self._running += 1
        return self._value

    def leave(self, entered: float) -> float:
        self._advance()
        self._running -= 1
        return self._value - entered

    def _advance(self) -> None:
        now = self._clock()
        if self._running:
            self._value += (now - self._last) / self._running
        self._last = now


async def fill(engine: Surface, jobs: Sequence[Job], store: Store, how: How, report: Report | None = None) -> None:
    """Carries out every job that the store does not have. Raises what a run raises, with all finished ones stored."""
    missing = [job for job in jobs if job.key not in store.samples]
    total, waiting, shared = len(jobs), iter(missing), SharedClock(how.clock)
    done = total - len(missing)

    async def work() -> None:
        nonlocal done
        for job in waiting:
            if report is not None:
                report(job.strategy, done, total)
            store.add(await carried_out(engine, job, how, shared))
            done += 1
            if report is not None:
                report(job.strategy, done, total)

    workers = [asyncio.ensure_future(work()) for _ in range(min(how.concurrency, len(missing)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def carried_out(engine: Surface, job: Job, how: How, shared: SharedClock) -> Sample:
    """One run. One that does not fit (its question alone is beyond a bound) is a sample of kind budget."""
    seed = seed_of(how.seed, job.item.id, job.draw)
    order = Order(job.strategy, job.budget, how.scorer, seed, how.sampling, clock=how.clock)
    chat = engine.tokenizer is not None and engine.tokenizer.chat_template is not None
    task = job.item.task if chat else replace(job.item.task, chat=False)
    entered = shared.enter()
    try:
        result: Result | None = await solve(engine, task, order)
    except (ContextExceeded, PagesExhausted):
        result = None
    except InvalidRequest as error:
        if error.field != "budget":
            raise
        result = None
    finally:
        share = shared.leave(entered)
    if result is None:
        return _nothing(job, seed, share, how)
    return await asyncio.to_thread(_sample, job, seed, share, how, result)


def seed_of(seed: int, item: str, draw: int) -> int:
    """The seed of one run: the same for every strategy and budget, so that they are compared on like noise."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{item}/{draw}".encode()).digest()[:8], "big") >> 11


def _nothing(job: Job, seed: int, share: float, how: How) -> Sample:
    return Sample(
        *job.key,
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
        oracle=how.scorer is not None and how.scorer.oracle,
    )


def _sample(job: Job, seed: int, share: float, how: How, result: Result) -> Sample:
    usage = result.usage
    chosen = next(c for c in result.candidates if (c.text, c.answer) == (result.text, result.answer))
    limit = job.item.task.ending.tokens
    cut = not chosen.finished or (limit is not None and chosen.tokens >= limit)
    return Sample(
        *job.key,
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
