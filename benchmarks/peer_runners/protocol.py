"""What every runner speaks: it prints one JSON line when it is ready, then answers one for each line it reads.

A peer is driven as a `Stepper`: rows are added, and each step reports how many tokens every row has. Runners run
in the peers' own environments, so this file needs the standard library alone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LOADED_ROWS = 8
ARRIVALS = 3
DECODED_AT_START = 32


@dataclass(frozen=True)
class Cell:
    """One measurement: `batch` rows, `prompt` tokens in each, `new` tokens drawn for each."""

    measure: str
    batch: int
    prompt: int
    new: int


@dataclass(frozen=True)
class Settings:
    """What a runner is started with. `rows`, `length`: the most rows, and tokens in a row; `cache_mib`: KV cache."""

    model: str
    threads: int
    rows: int
    length: int
    cache_mib: int
    options: dict[str, str]


class Runner(ABC):
    """A loaded engine that can be measured. Throughputs are tokens a second, times seconds."""

    version: str
    weights: str

    def fit(self, cell: Cell, prompts: list[list[int]]) -> None:  # noqa: B027 - most engines need none
        """Makes room for the cell, where the engine did not reserve all of it at load."""

    @abstractmethod
    def prepare(self, cell: Cell, prompts: list[list[int]]) -> None:
        """Unmeasured: allocates and warms up; for decode it brings the prompts into the cache."""

    @abstractmethod
    def decode(self, cell: Cell, prompts: list[list[int]]) -> float:
        """Tokens a second while every row decodes, prompts being in the cache."""

    @abstractmethod
    def prefill(self, cell: Cell, prompts: list[list[int]]) -> float:
        """Prompt tokens over the seconds until every row has its first token."""

    def close(self) -> None:  # noqa: B027 - most engines need none
        """Ends the engine's own threads."""

    def ttft(self, cell: Cell, prompts: list[list[int]]) -> float:
        """Mean seconds to the first token of prompts that arrive one after another beside decoding rows."""
        raise NotImplementedError(f"{type(self).__name__} cannot take a request while others run")


class Stepper(Runner):
    """A runner over an engine with continuous batching that is driven step by step."""

    @abstractmethod
    def add(self, row: int, prompt: list[int], new: int) -> None:
        """Queues a row that generates exactly `new` tokens."""

    @abstractmethod
    def step(self) -> dict[int, int]:
        """One engine step. Returns {row: tokens it has so far}, of the rows that got one now."""

    def run(self, prompts: list[list[int]], new: int, each: Callable[[dict[int, int]], None]) -> None:
        for row, prompt in enumerate(prompts):
            self.add(row, prompt, new)
        have = dict.fromkeys(range(len(prompts)), 0)
        while min(have.values()) < new:
            have |= self.step()
            each(have)

    def prepare(self, cell: Cell, prompts: list[list[int]]) -> None:
        self.fit(cell, prompts)
        self.run(prompts, 2, lambda _: None)

    def decode(self, cell: Cell, prompts: list[list[int]]) -> float:
        marks: list[tuple[float, int]] = []
        over = False

        def note(have: dict[int, int]) -> None:
            nonlocal over
            if min(have.values()) > 0 and not over:
                marks.append((time.perf_counter(), sum(have.values())))
            over = max(have.values()) >= cell.new

        self.run(prompts, cell.new, note)
        return window_rate(marks, cell)

    def prefill(self, cell: Cell, prompts: list[list[int]]) -> float:
        began = time.perf_counter()
        ended = [0.0]

        def note(have: dict[int, int]) -> None:
            if min(have.values()) > 0 and not ended[0]:
                ended[0] = time.perf_counter()

        self.run(prompts, cell.new, note)
        return sum(map(len, prompts)) / (ended[0] - began)

    def ttft(self, cell: Cell, prompts: list[list[int]]) -> float:
        """Arrivals fall on a step boundary, the kindest moment for the peer."""
        loaded, arriving = prompts[:LOADED_ROWS], prompts[LOADED_ROWS:]
        have = dict.fromkeys(range(LOADED_ROWS), 0)
        for row, prompt in enumerate(loaded):
            self.add(row, prompt, cell.new)
        while min(have.values()) < 4:
            have |= self.step()
        waits = []
        for row, prompt in enumerate(arriving, LOADED_ROWS):
            began = time.perf_counter()
            self.add(row, prompt, 2)
            while have.get(row, 0) < 1:
                have |= self.step()
            waits.append(time.perf_counter() - began)
        if any(have[row] >= cell.new for row in range(LOADED_ROWS)):
            raise RuntimeError("the load ended before the last arrival; give the cell more new tokens")
        while min(have[row] for row in range(LOADED_ROWS)) < cell.new:
            have |= self.step()
        return statistics.mean(waits)


def window_rate(marks: list[tuple[float, int]], cell: Cell) -> float:
    """Tokens over seconds between the first and the last mark."""
    (began, before), (ended, after) = marks[0], marks[-1]
    if after == before:
        raise RuntimeError(f"no step had all {cell.batch} rows in it; give the cell more new tokens")
    return (after - before) / (ended - began)


def prompts_of(cell: Cell, vocab: int, seed: int) -> list[list[int]]:
    """Random tokens, the same for every engine, other ones in every row, so that no row shares a prefix."""
    draw = random.Random(f"{cell.measure}/{cell.batch}/{cell.prompt}/{seed}")
    lengths = [128] * LOADED_ROWS + [cell.prompt] * ARRIVALS if cell.measure == "ttft" else [cell.prompt] * cell.batch
    return [[draw.randrange(vocab // 2) for _ in range(length)] for length in lengths]


def peak_mib() -> float:
    """The most memory this process has had resident, mapped weights included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def serve(build: Callable[[Settings], Runner]) -> None:
    """The runner's main: stdout carries replies alone, whatever the engine prints goes to stderr."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    for name in ("threads", "rows", "length", "cache-mib", "vocab"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--option", action="append", default=[], help="NAME=VALUE, for Headrace's own engine")
    parser.add_argument("--first-token", action="store_true", help="print a line at the first token, decode, end")
    args = parser.parse_args()
    replies = own_stdout()
    options = dict(pair.split("=", 1) for pair in args.option)
    runner = build(Settings(args.model, args.threads, args.rows, args.length, args.cache_mib, options))

    def say(reply: dict[str, Any]) -> None:
        print(json.dumps(reply), file=replies, flush=True)

    try:
        if args.first_token:
            first_token(runner, args.vocab, say)
            return
        say({"version": runner.version, "weights": runner.weights})
        for line in sys.stdin:
            say(answer(runner, json.loads(line), args.vocab))
    finally:
        runner.close()


def own_stdout() -> Any:
    """The real stdout, while descriptor 1 goes to stderr for native code that prints."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return replies


def first_token(runner: Runner, vocab: int, say: Callable[[dict[str, Any]], None]) -> None:
    """A short prompt to its first token, said at once; then some decoding, after which memory is read."""
    short, work = Cell("prefill", 1, 16, 1), Cell("decode", 8, 128, DECODED_AT_START)
    prompts = prompts_of(short, vocab, 0)
    runner.fit(short, prompts)
    runner.prefill(short, prompts)
    say({"first_token": True})
    prompts = prompts_of(work, vocab, 0)
    runner.prepare(work, prompts)
    runner.decode(work, prompts)
    say({"version": runner.version, "weights": runner.weights, "mib": peak_mib()})


def answer(runner: Runner, order: dict[str, Any], vocab: int) -> dict[str, Any]:
    """Runs {"do": "prepare" | "measure", "seed": …, and the cell's fields}. Errors are answered, not raised."""
    cell = Cell(order["measure"], order["batch"], order["prompt"], order["new"])
    prompts = prompts_of(cell, vocab, order["seed"])
    try:
        if order["do"] == "prepare":
            runner.prepare(cell, prompts)
            return {"ok": True}
        return {"value": getattr(runner, cell.measure)(cell, prompts)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
