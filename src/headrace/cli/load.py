"""A load generator against any OpenAI-compatible server: seeded arrivals and lengths, latencies as users see them."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headrace.spec.errors import InvalidRequest

if TYPE_CHECKING:
    import httpx

WORDS = (
    "water wheel river stone mill grain light morning house road winter field paper number question answer "
    "small large quick quiet early late north south bread letter table window garden story machine measure "
    "reason because before after under over between around every other second third always never often"
).split()


@dataclass(frozen=True, slots=True)
class Lengths:
    """A distribution of lengths: `fixed:N`, `uniform:LOW:HIGH` or `normal:MEAN:DEVIATION` (at least 1)."""

    kind: str
    numbers: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> Lengths:
        kind, *rest = text.split(":") if ":" in text else ("fixed", text)
        try:
            numbers = tuple(float(part) for part in rest)
        except ValueError:
            numbers = ()
        wanted = {"fixed": 1, "uniform": 2, "normal": 2}.get(kind)
        if wanted is None or len(numbers) != wanted or min(numbers) < 0:
            raise InvalidRequest(f"{text!r} is no length; write 128, fixed:128, uniform:16:256 or normal:128:32.")
        return cls(kind, numbers)

    def draw(self, source: random.Random) -> int:
        if self.kind == "uniform":
            low, high = sorted(int(n) for n in self.numbers)
            return max(1, source.randint(low, high))
        if self.kind == "normal":
            return max(1, round(source.gauss(*self.numbers)))
        return max(1, int(self.numbers[0]))


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is sent. `rate` requests a second arrive as a Poisson process; 0: as fast as `concurrency` allows."""

    url: str
    model: str | None
    requests: int
    concurrency: int
    rate: float
    prompt: Lengths
    output: Lengths
    seed: int
    endpoint: str = "chat"
    api_key: str | None = None
    ignore_eos: bool = False
    timeout: float = 600.0


@dataclass(slots=True)
class Outcome:
    """One request. Times in seconds; latencies count from the planned arrival, so waiting for a free slot shows."""

    arrival: float
    prompt_words: int
    wanted_tokens: int
    first: float | None = None
    last: float | None = None
    chunks: int = 0
    tokens: int | None = None
    error: str | None = None
    sent: float = field(default=0.0)


async def run_load(traffic: Traffic) -> dict[str, Any]:
    """Sends the whole traffic; returns counts, rates and percentiles."""
    import httpx

    limits = httpx.Limits(max_connections=traffic.concurrency, max_keepalive_connections=traffic.concurrency)
    headers = {"Authorization": f"Bearer {traffic.api_key}"} if traffic.api_key else {}
    async with httpx.AsyncClient(timeout=traffic.timeout, limits=limits, headers=headers) as client:
        model = traffic.model or await first_model(client, traffic.url)
        slots = asyncio.Semaphore(traffic.concurrency)
        plan, began = planned(traffic), time.perf_counter()
        work = [one_request(client, traffic, model, slots, began, outcome) for outcome in plan]
        await asyncio.gather(*work)
        return report(plan, time.perf_counter() - began, model)


async def first_model(client: httpx.AsyncClient, url: str) -> str:
    import httpx

    try:
        reply = await client.get(f"{url.rstrip('/')}/models")
        return str(reply.raise_for_status().json()["data"][0]["id"])
    except (httpx.HTTPError, KeyError, IndexError, ValueError) as error:
        raise InvalidRequest(
            f"{url}/models does not answer like an OpenAI-compatible server ({type(error).__name__}); check --url."
        ) from error


def planned(traffic: Traffic) -> list[Outcome]:
    source, at, plan = random.Random(traffic.seed), 0.0, []
    for _ in range(traffic.requests):
        plan.append(Outcome(at, traffic.prompt.draw(source), traffic.output.draw(source)))
        at += source.expovariate(traffic.rate) if traffic.rate else 0.0
    return plan


def body_of(traffic: Traffic, model: str, outcome: Outcome) -> dict[str, Any]:
    source = random.Random(f"{traffic.seed}/{outcome.arrival}/{outcome.prompt_words}")
    text = " ".join(source.choice(WORDS) for _ in range(outcome.prompt_words))
    body: dict[str, Any] = {"model": model, "max_tokens": outcome.wanted_tokens, "temperature": 0, "stream": True}
    body["stream_options"] = {"include_usage": True}
    if traffic.ignore_eos:
        body["ignore_eos"] = True
    if traffic.endpoint == "chat":
        return body | {"messages": [{"role": "user", "content": text}]}
    return body | {"prompt": text}


async def one_request(
    client: httpx.AsyncClient, traffic: Traffic, model: str, slots: asyncio.Semaphore, began: float, outcome: Outcome
) -> None:
    import httpx

    await asyncio.sleep(max(0.0, began + outcome.arrival - time.perf_counter()))
    path = "chat/completions" if traffic.endpoint == "chat" else "completions"
    async with slots:
        outcome.sent = time.perf_counter() - began
        if not traffic.rate:
            outcome.arrival = outcome.sent
        try:
            body = body_of(traffic, model, outcome)
            async with client.stream("POST", f"{traffic.url.rstrip('/')}/{path}", json=body) as reply:
                await read_reply(reply, began, outcome)
        except httpx.HTTPError as error:
            outcome.error = type(error).__name__


async def read_reply(reply: httpx.Response, began: float, outcome: Outcome) -> None:
    if reply.status_code != 200:
        await reply.aread()
        outcome.error = f"HTTP {reply.status_code}"
        return
    finished = False
    async for line in reply.aiter_lines():
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        finished = finished or data == "[DONE]"
        if data != "[DONE]":
            read_chunk(json.loads(data), time.perf_counter() - began, outcome)
    if not finished and outcome.error is None:
        outcome.error = "stream broke off"


def read_chunk(chunk: dict[str, Any], now: float, outcome: Outcome) -> None:
    if "error" in chunk:
        outcome.error = "error in stream"
    if usage := chunk.get("usage"):
        outcome.tokens = usage.get("completion_tokens")
    for choice in chunk.get("choices") or ():
        if choice.get("text") or (choice.get("delta") or {}).get("content"):
            outcome.first = now if outcome.first is None else outcome.first
            outcome.last, outcome.chunks = now, outcome.chunks + 1


def report(outcomes: Sequence[Outcome], wall: float, model: str) -> dict[str, Any]:
    good = [o for o in outcomes if o.error is None]
    new_tokens = sum(count(o) for o in good)
    return {
        "model": model,
        "requests": len(outcomes),
        "succeeded": len(good),
        "errors": dict(Counter(o.error for o in outcomes if o.error is not None)),
        "seconds": wall,
        "requests_per_second": len(good) / wall,
        "output_tokens": new_tokens,
        "output_tokens_per_second": new_tokens / wall,
        "first_token_seconds": percentiles([o.first - o.arrival for o in good if o.first is not None]),
        "seconds_per_token": percentiles([pace for o in good if (pace := seconds_per_token(o)) is not None]),
        "request_seconds": percentiles([o.last - o.arrival for o in good if o.last is not None]),
    }


def count(outcome: Outcome) -> int:
    return outcome.chunks if outcome.tokens is None else outcome.tokens


def seconds_per_token(outcome: Outcome) -> float | None:
    """Mean time between tokens after the first; None where all came in one piece, which says nothing of it."""
    if outcome.first is None or outcome.last is None or min(count(outcome), outcome.chunks) < 2:
        return None
    return (outcome.last - outcome.first) / (count(outcome) - 1)


def percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """Nearest-rank percentiles: every figure is one that a request really had."""
    if not values:
        return None
    ordered = sorted(values)
    ranks = {"p50": 50, "p90": 90, "p99": 99}
    found = {name: ordered[-(-share * len(ordered) // 100) - 1] for name, share in ranks.items()}
    return {"mean": sum(ordered) / len(ordered), **found, "max": ordered[-1]}
