"""How much a busy server slows a running decode.

One generation runs in the engine of a real server. In alternating windows another process is quiet, or sends
it requests that cost the server work but no model time: long texts to /tokenize, and requests that are
refused. That process stands for clients on other machines, so it takes only what the engine and the server
leave of the cores: its policy is SCHED_IDLE, at once preempted by whoever wakes. Printed are the decode
rates, and the ratio busy to quiet of each pair: median and range. A pair counts only where programs that do
not belong here took little of the machine.

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
    """In a process of its own: sends requests from "go" to "stop"; tells at each "count" how many were answered."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with httpx.Client(base_url=url, timeout=60, limits=httpx.Limits(max_connections=connections)) as client:
        while pipe.recv() == "go":
            stop = threading.Event()
            counts = [0] * connections
            threads = [threading.Thread(target=send, args=(client, stop, counts, i)) for i in range(connections)]
            for thread in threads:
                thread.start()
            while pipe.recv() == "count":
                pipe.send(sum(counts))
            stop.set()
            for thread in threads:
                thread.join()


def send(client: httpx.Client, stop: threading.Event, counts: list[int], lane: int) -> None:
    while not stop.is_set():
        path, body = CALLS[(counts[lane] + lane) % len(CALLS)]
        reply = client.post(path, json=body)
        assert reply.status_code < 500, reply.text
        counts[lane] += 1


class Foreign:
    """How much of the machine other programs take: what was busy less what this benchmark's processes used."""

    def __init__(self) -> None:
        self._began, self._ticks = time.perf_counter(), self._busy()

    def share(self) -> float:
        """Of all cores, since the beginning."""
        seconds = (self._busy() - self._ticks) / os.sysconf("SC_CLK_TCK")
        return seconds / (time.perf_counter() - self._began) / (os.cpu_count() or 1)

    @staticmethod
    def _busy() -> int:
        user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text().split()[1:8])
        own = 0
        for pid in (os.getpid(), *(process.pid for process in multiprocessing.active_children())):
            after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            own += int(after_name[11]) + int(after_name[12])
        return user + nice + system + sum(interrupts) - own


class Windows:
    """Measures a decode while the client is quiet or busy."""

    def __init__(self, sequence: Any, client: Connection, tokens: int) -> None:
        self.requests, self.busy_seconds = 0, 0.0
        self._sequence, self._client, self._tokens = sequence, client, tokens

    def pair(self, busy_first: bool) -> dict[str, float]:
        foreign = Foreign()
        rates = {"busy" if busy else "quiet": self._rate(busy) for busy in (busy_first, not busy_first)}
        return rates | {"foreign": foreign.share()}

    def _rate(self, busy: bool) -> float:
        if not busy:
            return decode_rate(self._sequence, self._tokens)
        self._client.send("go")
        time.sleep(0.2)
        before, began = self._answered(), time.perf_counter()
        rate = decode_rate(self._sequence, self._tokens)
        self.busy_seconds += time.perf_counter() - began
        self.requests += self._answered() - before
        self._client.send("stop")
        return rate

    def _answered(self) -> int:
        self._client.send("count")
        answered: int = self._client.recv()
        return answered


def measure(engine: Surface, url: str, pairs: int, tokens: int, connections: int, foreign: float) -> dict[str, Any]:
    """Takes pairs until `pairs` of them had at most `foreign` of the machine taken by others, and no more than
    ten times as many. Empty where none had."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    client = multiprocessing.get_context("spawn").Process(target=hammer, args=(there, url, connections))
    client.start()
    rounds: list[dict[str, float]] = []
    taken = 0
    with engine.open_now("Once upon a time", seed=0, sampling=Sampling(temperature=0)) as sequence:
        decode_rate(sequence, tokens)
        windows = Windows(sequence, here, tokens)
        while len(rounds) < pairs and taken < 10 * pairs:
            found = windows.pair(busy_first=taken % 2 == 1)
            taken += 1
            counts = found["foreign"] <= foreign
            rounds += [found] if counts else []
            line = "quiet {quiet:.1f}  busy {busy:.1f} tokens/s  others {foreign:.0%}".format(**found)
            print(line + ("" if counts else "  does not count"), flush=True)
    here.send("end")
    client.join()
    if not rounds:
        return {}
    ratios = sorted(found["busy"] / found["quiet"] for found in rounds)
    return {
        "rounds": rounds,
        "pairs_taken": taken,
        "ratio_median": statistics.median(ratios),
        "ratio_range": [ratios[0], ratios[-1]],
        "requests_per_second": windows.requests / windows.busy_seconds,
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
    parser.add_argument("--threads", type=int, help="compute threads of the engine (default: as it chooses)")
    parser.add_argument("--foreign", type=float, default=0.05, help="most of the machine that others may take")
    parser.add_argument("--in-process", action="store_true", help="engine and server in one process, to compare")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    options = EngineOptions(threads=arguments.threads)
    result: dict[str, Any] = {}

    def work(engine: Surface, url: str) -> None:
        of = (arguments.pairs, arguments.tokens, arguments.connections, arguments.foreign)
        result.update(measure(engine, url, *of))

    with loaded_engine(arguments.model, options, remote=not arguments.in_process) as engine:
        if not arguments.in_process:
            os.nice(YIELDING)
        serve(engine, ServerConfig(port=0), ready=lambda url: in_thread(lambda: work(engine, url)))
    if not result:
        raise SystemExit("The machine was never quiet enough; end what else runs, or raise --foreign.")
    low, high = result["ratio_range"]
    print(f"busy / quiet: median {result['ratio_median']:.3f}, range {low:.3f} to {high:.3f}")
    print(f"{result['requests_per_second']:.0f} requests/s were answered beside it")
    if arguments.output is not None:
        about: dict[str, Any] = {"kind": "server_interference", "machine": measured_on(), "options": asdict(options)}
        about["date"] = datetime.now(UTC).isoformat(timespec="seconds")
        about |= {"server_niceness": YIELDING, "client_policy": "idle", "foreign": arguments.foreign}
        about |= {"in_process": arguments.in_process, "tokens": arguments.tokens, "connections": arguments.connections}
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(about | result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
