"""Requests that arrive at random, and the ways to serve them: as they come, in static batches, one at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random

from headrace.engine.engine import Engine
from headrace.engine.sequence import SequenceHandle
from headrace.evidence.watch import Watch
from headrace.spec.sampling import Sampling, Stop


@dataclass(frozen=True, slots=True)
class Request:
    """`arrives`: seconds after the start. `leaves_after`: cancelled when so many tokens have come."""

    prompt: tuple[int, ...]
    new: int
    seed: int
    temperature: float = 0.0
    arrives: float = 0.0
    leaves_after: int | None = None


@dataclass(slots=True)
class Served:
    """Token ids of each request, and for each the seconds from its arrival to its last token."""

    tokens: list[list[int]]
    latencies: list[float]
    seconds: float = 0.0
    sequences: list[int] = field(default_factory=list)

    @property
    def throughput(self) -> float:
        """New tokens a second, from the first arrival to the last token."""
        return sum(map(len, self.tokens)) / self.seconds

    @property
    def latency(self) -> float:
        return sum(self.latencies) / len(self.latencies)


def draw_requests(
    rng: Random, count: int, vocab: int, prompt: tuple[int, int], new: tuple[int, int], gap: float, leave: float = 0.0
) -> list[Request]:
    """`gap`: mean seconds between arrivals (exponential). `leave`: share that is cancelled on its way."""
    requests, now = [], 0.0
    for _ in range(count):
        ids = tuple(rng.randrange(vocab) for _ in range(rng.randint(*prompt)))
        length = rng.randint(*new)
        leaves = rng.randrange(length) if rng.random() < leave else None
        heat = rng.choice((0.0, 1.0))
        requests.append(Request(ids, length, rng.getrandbits(32), heat, now, leaves))
        now += rng.expovariate(1 / gap) if gap else 0.0
    return requests


def as_they_come(engine: Engine, requests: Sequence[Request], watch: Watch | None = None) -> Served:
    """Continuous batching: each request is opened at its arrival and dropped when it has ended."""

    async def all_of_them() -> Served:
        began = time.perf_counter()
        return _gather(began, await asyncio.gather(*(_one(engine, r, began, watch) for r in requests)))

    return asyncio.run(all_of_them())


def in_static_batches(engine: Engine, requests: Sequence[Request], batch: int) -> Served:
    """A batch is made of what has arrived, and the next one waits until the whole batch has ended."""

    async def batches() -> Served:
        began, left, done = time.perf_counter(), list(requests), []
        while left:
            await _until(began, left[0].arrives)
            now = time.perf_counter() - began
            group = [request for request in left[:batch] if request.arrives <= now]
            left = left[len(group) :]
            done += await asyncio.gather(*(_one(engine, request, began) for request in group))
        return _gather(began, done)

    return asyncio.run(batches())


def one_at_a_time(engines: Sequence[Engine], requests: Sequence[Request]) -> Served:
    """Concurrent instances: each engine serves one request at a time, in order of arrival."""

    async def instances() -> Served:
        began, queue = time.perf_counter(), list(enumerate(requests))
        done: dict[int, tuple[int, list[int], float]] = {}

        async def instance(engine: Engine) -> None:
            while queue:
                index, request = queue.pop(0)
                done[index] = await _one(engine, request, began)

        await asyncio.gather(*(instance(engine) for engine in engines))
        return _gather(began, [done[index] for index in sorted(done)])

    return asyncio.run(instances())


def alone(engine: Engine, requests: Sequence[Request]) -> list[list[int]]:
    """The tokens of each request when nothing else runs, none of them cancelled."""
    return one_at_a_time([engine], [replace(request, arrives=0.0, leaves_after=None) for request in requests]).tokens


async def _until(began: float, second: float) -> None:
    await asyncio.sleep(max(began + second - time.perf_counter(), 0.0))


async def _one(
    engine: Engine, request: Request, began: float, watch: Watch | None = None
) -> tuple[int, list[int], float]:
    await _until(began, request.arrives)
    sampling = Sampling(temperature=request.temperature)
    sequence = await engine.open(request.prompt, seed=request.seed, sampling=sampling)
    tokens = await _tokens(sequence, request)
    spent = time.perf_counter() - began - request.arrives
    sequence.drop()
    if watch is not None:
        watch.release(sequence.id)
    return sequence.id, tokens, spent


async def _tokens(sequence: SequenceHandle, request: Request) -> list[int]:
    extension = sequence.extend(Stop(tokens=request.new, ignore_eos=True))
    if request.leaves_after is None:
        return (await extension).token_ids
    tokens: list[int] = []
    if request.leaves_after == 0:
        return tokens  # its caller drops it while it runs or still waits
    async for token in extension:
        tokens.append(token.id)
        if len(tokens) == request.leaves_after:
            break
    return tokens


def _gather(began: float, done: Sequence[tuple[int, list[int], float]]) -> Served:
    ids, tokens, latencies = (list(column) for column in zip(*done, strict=True))
    return Served(tokens, latencies, time.perf_counter() - began, ids)
