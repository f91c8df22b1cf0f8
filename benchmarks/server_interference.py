"""How much a busy server slows a running decode.

One generation runs in the engine of a real server. In alternating windows another process is quiet, or sends
it requests that cost the server work but no model time: long texts to /tokenize, and requests that are
refused. Printed are the decode rates, and the ratio busy to quiet of each pair: median and range.

    python benchmarks/server_interference.py [--pairs 8] [--output benchmarks/results/server_interference.json]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx

from headrace import Sampling, Stop
from headrace.cli.generation import loaded_engine
from headrace.cli.machine import measured_on
from headrace.cli.serve import YIELDING
from headrace.engine.surface import Surface
from headrace.server.config import ServerConfig
from headrace.server.serve import serve
from headrace.spec.options import EngineOptions

TEXT = "The water of the river turns the wheel, and the wheel turns the stone that grinds the grain. " * 40
CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/tokenize", {"prompt": TEXT}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": TEXT}], "no_such_field": 1}),
    ("/tokenize", {"prompt": TEXT[:400]}),
    ("/v1/completions", {"prompt": TEXT, "temperature": -1}),
)


def hammer(pipe: Connection, url: str, connections: int) -> None:
    """In a process of its own: sends requests between "go" and "stop", and reports how many were answered."""
    with httpx.Client(base_url=url, timeout=60, limits=httpx.Limits(max_connections=connections)) as client:
        while pipe.recv() == "go":
            stop = threading.Event()
            counts = [0] * connections
            threads = [threading.Thread(target=send, args=(client, stop, counts, i)) for i in range(connections)]
            for thread in threads:
                thread.start()
            pipe.recv()
            stop.set()
            for thread in threads:
                thread.join()
            pipe.send(sum(counts))


def send(client: httpx.Client, stop: threading.Event, counts: list[int], lane: int) -> None:
    while not stop.is_set():
        path, body = CALLS[(counts[lane] + lane) % len(CALLS)]
        reply = client.post(path, json=body)
        assert reply.status_code < 500, reply.text
        counts[lane] += 1


def measure(engine: Surface, url: str, pairs: int, tokens: int, connections: int) -> dict[str, Any]:
    here, there = multiprocessing.get_context("spawn").Pipe()
    client = multiprocessing.get_context("spawn").Process(target=hammer, args=(there, url, connections))
    client.start()
    rounds, requests, busy_seconds = [], 0, 0.0
    with engine.open_now("Once upon a time", seed=0, sampling=Sampling(temperature=0)) as sequence:
        decode_rate(sequence, tokens)
        for number in range(pairs):
            rates = {}
            for busy in (False, True) if number % 2 == 0 else (True, False):
                began = time.perf_counter()
                if busy:
                    here.send("go")
                    time.sleep(0.2)
                rates["busy" if busy else "quiet"] = decode_rate(sequence, tokens)
                if busy:
                    here.send("stop")
                    requests += here.recv()
                    busy_seconds += time.perf_counter() - began
            rounds.append(rates)
            print(f"quiet {rates['quiet']:.1f}  busy {rates['busy']:.1f} tokens/s", flush=True)
    here.send("end")
    client.join()
    ratios = sorted(r["busy"] / r["quiet"] for r in rounds)
    return {
        "rounds": rounds,
        "ratio_median": statistics.median(ratios),
        "ratio_range": [ratios[0], ratios[-1]],
        "requests_per_second": requests / busy_seconds,
    }


def decode_rate(sequence: Any, tokens: int) -> float:
    """Tokens a second after the first, of an extend that is taken back afterwards."""
    mark = sequence.mark()
    step = sequence.extend(Stop(tokens=tokens, ignore_eos=True)).result()
    sequence.rewind(mark)
    return (len(step.token_ids) - 1) / (step.seconds - step.first_token_seconds)


def in_thread(work: Callable[[], None]) -> None:
    def run() -> None:
        try:
            work()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=run).start()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128, help="length of one window")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1, help="compute threads of the engine")
    parser.add_argument("--in-process", action="store_true", help="engine and server in one process, to compare")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    options = EngineOptions(threads=arguments.threads)
    result: dict[str, Any] = {}

    def work(engine: Surface, url: str) -> None:
        result.update(measure(engine, url, arguments.pairs, arguments.tokens, arguments.connections))

    with loaded_engine(arguments.model, options, remote=not arguments.in_process) as engine:
        if not arguments.in_process:
            os.nice(YIELDING)
        serve(engine, ServerConfig(port=0), ready=lambda url: in_thread(lambda: work(engine, url)))
    low, high = result["ratio_range"]
    print(f"busy / quiet: median {result['ratio_median']:.3f}, range {low:.3f} to {high:.3f}")
    print(f"{result['requests_per_second']:.0f} requests/s were answered beside it")
    if arguments.output is not None:
        about = {"kind": "server_interference", "machine": measured_on(), "options": asdict(options)}
        about["date"] = datetime.now(UTC).isoformat(timespec="seconds")
        about |= {"in_process": arguments.in_process, "tokens": arguments.tokens, "connections": arguments.connections}
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(about | result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
