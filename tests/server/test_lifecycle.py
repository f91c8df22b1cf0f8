"""Clients that vanish free their pages; SIGTERM loses no accepted request; a dead engine ends the process."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from headrace.engine.engine import Engine
from server.twin import wait_until

ROOT = Path(__file__).resolve().parents[2]
LONG = {"prompt": "tell me a long story", "max_tokens": 450, "ignore_eos": True}

SERVE = """
import sys
from headrace.engine.remote import RemoteEngine
from headrace.server.config import ServerConfig
from headrace.server.serve import serve
from headrace.spec.options import EngineOptions
with RemoteEngine(sys.argv[1], EngineOptions(threads=1, state_memory=8)) as engine:
    config = ServerConfig(port=0, model_name="twin", drain_seconds=float(sys.argv[2]))
    sys.exit(serve(engine, config, ready=lambda url: print(url, engine._process.pid, flush=True)))
"""
"""As `headrace serve` does it: the engine in a process of its own, whose number is printed after the URL."""


async def vanish(url: str, rng: random.Random, stream: bool) -> None:
    """Sends a request over a bare socket and closes it at a random moment."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps(LONG | {"stream": stream, "n": rng.choice([1, 2])}).encode()
    lines = [
        "POST /v1/completions HTTP/1.1",
        "Host: x",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    whole = "\r\n".join([*lines, "", ""]).encode() + body
    kind = rng.randrange(4)
    writer.write(whole[: rng.randrange(len(whole))] if kind == 0 else whole)
    await writer.drain()
    if kind == 2 and stream:
        await reader.read(rng.randrange(1, 2000))
    elif kind == 3:
        await asyncio.sleep(rng.random() / 10)
    writer.close()


def vanishing(engine: Engine, url: str, count: int, together: int = 20) -> None:
    async def crowd() -> None:
        rng = random.Random(count)
        for start in range(0, count, together):
            clients = [vanish(url, rng, (start + i) % 2 == 0) for i in range(together)]
            await asyncio.gather(*clients)

    asyncio.run(crowd())
    wait_until(lambda: engine.stats()["pages_used"] == 0 and engine.stats()["open_sequences"] == 0)
    assert httpx.post(f"{url}/v1/completions", json={"prompt": "x", "max_tokens": 2}).status_code == 200
    wait_until(lambda: engine.stats()["pages_used"] == 0)
    engine.check()


def test_vanishing_clients_leave_nothing(engine: Engine, url: str) -> None:
    vanishing(engine, url, 60)


@pytest.mark.prove
def test_500_vanishing_clients_leave_nothing(engine: Engine, url: str, figures: dict) -> None:
    vanishing(engine, url, 500)
    figures |= {"clients": 500, "pages_held": engine.stats()["pages_used"]}


def test_a_vanished_client_frees_its_pages_within_a_step(engine: Engine, url: str) -> None:
    """Nothing else runs: were the request not cancelled, steps would go on to its 450 tokens."""
    before = engine.stats()["steps"]
    with (
        httpx.Client() as client,
        client.stream("POST", f"{url}/v1/completions", json=LONG | {"stream": True}) as reply,
    ):
        lines = reply.iter_lines()
        for _ in range(3):
            next(lines)
    wait_until(lambda: engine.stats()["pages_used"] == 0)
    assert engine.stats()["steps"] - before < 450


def start(twin: Path, drain: float) -> tuple[subprocess.Popen[str], str, int]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(twin), str(drain)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    url, engine = process.stdout.readline().split()
    return process, url, int(engine)


def test_term_under_load_loses_nothing(twin: Path) -> None:
    """Every request is answered whole, or refused by 503 or a closed door; those under way are answered whole."""
    process, url, _ = start(twin, drain=60)

    async def one(client: httpx.AsyncClient, number: int, begun: set[int]) -> tuple[int, str]:
        body = {"prompt": "drain", "max_tokens": 80, "ignore_eos": True, "stream": True}
        text = ""
        try:
            async with client.stream("POST", f"{url}/v1/completions", json=body) as reply:
                async for line in reply.aiter_lines():
                    begun.add(number)
                    text += line
                return number, f"{reply.status_code} {'whole' if text.endswith('[DONE]') else text[-200:]}"
        except httpx.ConnectError:
            return number, "closed"

    async def load() -> tuple[list[tuple[int, str]], set[int]]:
        begun: set[int] = set()
        async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_keepalive_connections=0)) as client:
            first = [asyncio.create_task(one(client, i, begun)) for i in range(16)]
            while len(begun) < 16:
                await asyncio.sleep(0.01)
            under_way = {i for i, task in enumerate(first) if not task.done()}
            process.send_signal(signal.SIGTERM)
            late = [asyncio.create_task(one(client, 100 + i, begun)) for i in range(16)]
            return await asyncio.gather(*first, *late), under_way

    results, under_way = asyncio.run(load())
    assert under_way, "the signal came after the load"
    for number, outcome in results:
        assert (
            outcome == "200 whole" if number < 16 else outcome in ("200 whole", "closed") or outcome.startswith("503")
        )
    assert process.wait(60) == 0


def test_after_the_drain_limit_requests_are_ended_and_the_exit_is_clean(twin: Path) -> None:
    process, url, _ = start(twin, drain=0)
    lines = []
    body = LONG | {"stream": True, "n": 8}
    with httpx.Client(timeout=60) as client, client.stream("POST", f"{url}/v1/completions", json=body) as reply:
        for line in reply.iter_lines():
            if not lines:
                process.send_signal(signal.SIGTERM)
            lines.append(line)
    assert '"code":"draining"' in "".join(lines) and "[DONE]" not in lines
    assert process.wait(60) == 0


def test_a_dead_engine_ends_the_process_with_a_failure(twin: Path) -> None:
    process, url, engine = start(twin, drain=5)
    lines = []
    body = LONG | {"stream": True}
    with httpx.Client(timeout=60) as client, client.stream("POST", f"{url}/v1/completions", json=body) as reply:
        for line in reply.iter_lines():
            if not lines:
                os.kill(engine, signal.SIGKILL)
            lines.append(line)
    assert '"code":"engine_stopped"' in "".join(lines) and "[DONE]" not in lines
    assert process.wait(60) == 1
