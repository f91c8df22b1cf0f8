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

Every measurement is kept in the cache folder as it ends, so a run that was cut off goes on where it was; one during
which other work took a fifth of a core or more does not count and is taken again by the next run (`--disturbed`
counts it).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import httpx
from peer_runners.cells import QUIET
from peer_runners.session import Bystanders
from peer_runners.vllm_server import group_of, vllm_server
from peers import revision_of, setting_of

from headrace import Engine, Sampling, Stop
from headrace.evidence.machine import describe_machine, today
from headrace.spec.events import StepEvent
from headrace.spec.model import PAGE_TOKENS
from headrace.spec.options import EngineOptions

CACHE = Path.home() / ".cache/headrace/peers"
RESULTS = Path(__file__).parent / "results"
MODEL = "smollm2-135m"
PROMPT, STEPS, STEP_TOKENS, EXPAND = 600, 8, 32, 4
WARM = Sampling(temperature=1.0)
FIGURES = ("prefill", "seconds", "pages")


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


class Cells:
    """What was measured, a JSON line each, by machine and threads, sources, way, beams and round."""

    def __init__(self, path: Path, threads: int, disturbed: bool) -> None:
        self._path, self._disturbed = path, disturbed
        self._here = {"setting": setting_of(threads), "revision": revision_of([])}
        lines = path.read_text().splitlines() if path.exists() else []
        self._found = [cell for line in lines if (cell := _read(line)) is not None]

    def get(self, **key: Any) -> dict[str, Any] | None:
        """The latest that counts."""
        wanted = self._here | key
        for cell in reversed(self._found):
            if wanted.items() <= cell.items() and (self._disturbed or cell["bystanders"] <= QUIET):
                return cell
        return None

    def add(self, figures: dict[str, Any], bystanders: float, **key: Any) -> dict[str, Any]:
        cell = self._here | key | figures | {"bystanders": round(bystanders, 3)}
        self._found.append(cell)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(f"\n{json.dumps(cell)}\n")  # a line of its own, also behind one that a kill has torn
        noise = "" if bystanders <= QUIET else f"   disturbed: others took {bystanders:.1f} cores"
        shown = ", ".join(f"{name} {value:.4g}" for name, value in figures.items() if isinstance(value, float | int))
        print(f"{key['beams']} beams, round {key['round'] + 1}, {key['way']}: {shown}{noise}", flush=True)
        return cell


def _read(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except ValueError:
        return None


async def by_http(url: str, prompt: list[int], beams: int) -> float:
    """The beam as its users run it: one completion request a beam and step, with token ids.

    Without a seed, which costs vLLM 0.32.0 a generator a request and ends its engine at 64 of them.
    """
    began = time.perf_counter()
    async with httpx.AsyncClient(timeout=600, limits=httpx.Limits(max_connections=beams)) as http:
        model = (await http.get(f"{url}/v1/models")).json()["data"][0]["id"]

        async def extended(text: list[int]) -> list[int]:
            body = {"model": model, "prompt": text, "max_tokens": STEP_TOKENS, "temperature": 1.0}
            body |= {"ignore_eos": True, "return_token_ids": True, "detokenize": False}
            choice = (await http.post(f"{url}/v1/completions", json=body)).json()["choices"][0]
            return text + choice["token_ids"]

        texts = [prompt] * beams
        for step in range(STEPS):
            grown = await asyncio.gather(*(extended(text) for text in texts))
            texts = [grown[parent] for parent in chosen(beams, step)]
    return time.perf_counter() - began


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def own_rows(cells: Cells, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The three ways of Headrace in alternation, as ratios over forks."""
    wanted = [(beams, number, way) for beams in args.beams for number in range(args.rounds) for way in FORMULAS]
    missing = [(b, n, way) for b, n, way in wanted if cells.get(beams=b, round=n, way=way) is None]
    if missing:
        measure_own(cells, args, missing)
    rows = []
    for beams in args.beams:
        rounds = [{way: cells.get(beams=beams, round=n, way=way) for way in FORMULAS} for n in range(args.rounds)]
        whole = [{way: cell for way, cell in one.items() if cell} for one in rounds if all(one.values())]
        row: dict[str, Any] = {"beams": beams, "rounds": [{w: figures_of(c) for w, c in one.items()} for one in whole]}
        for way in FORMULAS.keys() - {"forks"} if whole else ():
            over = {name: [one[way][name] / one["forks"][name] for one in whole] for name in FIGURES}
            row[way] = {name: spread(values) for name, values in over.items()}
        rows.append(row)
    return rows


def measure_own(cells: Cells, args: argparse.Namespace, missing: Sequence[tuple[int, int, str]]) -> None:
    with Engine.load(MODEL, options_of(args, True)) as on, Engine.load(MODEL, options_of(args, False)) as off:
        prompt = [Random(7).randrange(100, on.spec.vocab) for _ in range(PROMPT)]
        for beams, number, way in missing:
            with Bystanders(os.getpid()) as others:
                found = measured(off if way == "cache_off" else on, way, prompt, beams)
            cells.add(found, others.cores, beams=beams, round=number, way=way)


def options_of(args: argparse.Namespace, prefix_cache: bool) -> EngineOptions:
    return EngineOptions(threads=args.threads, state_memory=1500, context=1024, prefix_cache=prefix_cache)


def figures_of(cell: dict[str, Any]) -> dict[str, float]:
    return {name: cell[name] for name in FIGURES}


def peer_rows(cells: Cells, args: argparse.Namespace) -> dict[str, Any]:
    """The same beam through the peer's server, in alternation with ours by forks; ratio above 1: ours is quicker."""
    wanted = [(beams, number) for beams in args.beams for number in range(args.rounds)]
    missing = [(b, n) for b, n in wanted if cells.get(beams=b, round=n, way=args.peer) is None]
    if missing:
        measure_peer(cells, args, missing)
    found: dict[str, Any] = {"name": args.peer, "rows": []}
    for beams in args.beams:
        pairs = [cell for n in range(args.rounds) if (cell := cells.get(beams=beams, round=n, way=args.peer))]
        if pairs:
            told = [{name: cell[name] for name in ("ours", "theirs", "ratio")} for cell in pairs]
            ratio = spread([cell["ratio"] for cell in pairs])
            found["version"] = pairs[-1]["version"]
            found["rows"].append({"beams": beams, "pairs": told, "ratio": ratio})
    return found


def measure_peer(cells: Cells, args: argparse.Namespace, missing: Sequence[tuple[int, int]]) -> None:
    """Every round has a prompt of its own, which no cache has seen; who goes first changes with the round."""
    with (
        vllm_server(CACHE, MODEL, args.threads) as (url, version, leader),
        Engine.load(MODEL, options_of(args, True)) as engine,
    ):
        vocab = engine.spec.vocab
        asyncio.run(by_http(url, [Random(5).randrange(100, vocab) for _ in range(64)], 4))
        for beams, number in missing:
            prompt = [Random(f"{beams}/{number}").randrange(100, vocab) for _ in range(PROMPT)]
            with Bystanders(os.getpid(), *group_of(leader)) as others:
                ours = measured(engine, "forks", prompt, beams)["seconds"] if number % 2 else 0.0
                theirs = asyncio.run(by_http(url, prompt, beams))
                ours = ours or measured(engine, "forks", prompt, beams)["seconds"]
            pair = {"ours": ours, "theirs": theirs, "ratio": theirs / ours, "version": version}
            cells.add(pair, others.cores, beams=beams, round=number, way=args.peer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--beams", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", choices=["vllm"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--disturbed", action="store_true", help="count what was measured beside other work as well")
    parser.add_argument("--output", type=Path, default=RESULTS / "kv_sharing.json")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the peer's server ends as well
    args.beams = args.beams or [4, 16, 64]
    cells = Cells(CACHE / "kv_sharing.jsonl", args.threads, args.disturbed)
    result: dict[str, Any] = {
        "machine": describe_machine(),
        "date": today(),
        "model": MODEL,
        "prompt": PROMPT,
        "steps": STEPS,
        "step_tokens": STEP_TOKENS,
        "expand": EXPAND,
        "threads": args.threads,
        "rows": own_rows(cells, args),
    }
    if args.peer:
        result["peer"] = peer_rows(cells, args)
    args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    short = [row["beams"] for row in result["rows"] if len(row["rounds"]) < args.rounds]
    if short:
        raise SystemExit(f"Other work disturbed rounds of {short} beams; run this again on a quiet machine.")


if __name__ == "__main__":
    sys.exit(main())
