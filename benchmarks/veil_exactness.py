"""What a veil costs on real weights: answers through the proxy, logits, speed, and what quantising loses.

    python benchmarks/veil_exactness.py [answers throughput quantised] [--quick] [--seconds 900] [--output FILE]

The model is written out in float twice, as it is and veiled. A server process has the veiled folder alone; the proxy
here holds the key. A cell is one prompt, one round of decoding or one window of text; cells are kept in the user's
cache as they are done and are not run twice. With --seconds no new cell is begun after that much processor time.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from accuracy import compare as compare_windows
from accuracy import english, text_windows
from kept_rows import keep, kept, parser, write
from veil_exactness_summary import summary

from headrace.cli.machine import measured_on
from headrace.cli.served import serving
from headrace.evidence.machine import commit_of
from headrace.evidence.stage import Stage
from headrace.evidence.veil_checks import Compared, GreedyAnswer, ask, compare_all, logits_of, one_round
from headrace.evidence.veiled import KNOWN, TWINS, Pair, Twin, key_of, paced, served, stage_of, told_prompts, write_twin
from headrace.model.catalogue import cache_folder, resolve
from headrace.model.loading import load_model
from headrace.privacy.veil.client import VeiledEngine
from headrace.privacy.veil.keyfile import TokenBudget
from headrace.privacy.veil.shards import Kind
from headrace.privacy.veil.tokens import TokenMap
from headrace.spec.errors import HeadraceError
from headrace.spec.ledger import Ledger

ROOT = Path(__file__).resolve().parents[1]
RECIPE = 1
"""Goes up when a change makes kept cells say something else."""
PARTS = ("answers", "throughput", "quantised")
GROUP = 10
"""Prompts that are answered at the same time."""


@dataclass(frozen=True)
class Sizes:
    """What a run covers: `prompts` of `new` tokens; `rounds` of `pace` tokens a weight type; `tokens` of text."""

    prompts: int = 50
    new: int = 64
    rounds: int = 12
    pace: int = 64
    tokens: int = 20_000
    weights: tuple[str, ...] = ("bf16", "int8", "int4")

    def cells(self, part: str) -> Iterator[dict[str, Any]]:
        """The settings of a part's cells."""
        if part == "answers":
            yield from ({"prompt": number, "new": self.new} for number in range(self.prompts))
        elif part == "throughput":
            for weights in self.weights:
                yield from ({"weights": weights, "round": n, "pace": self.pace} for n in range(self.rounds))
        else:
            for window in range(-(-self.tokens // 512)):
                for weights in self.weights:
                    yield from ({"weights": weights, "model": name, "window": window} for name in TWINS)


QUICK = Sizes(prompts=4, new=16, rounds=2, pace=16, tokens=1024)


class Cells:
    """What was done earlier and what is done now, one JSON line each."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._path, self._seconds, self._began = path, seconds, time.process_time()
        self.rows: dict[str, dict[str, Any]] = {}
        for row in kept(path).values():
            self.rows[row.pop("key")] = row

    @staticmethod
    def key(part: str, setting: dict[str, Any]) -> str:
        return json.dumps([RECIPE, part, setting], sort_keys=True)

    def open(self, part: str, sizes: Sizes) -> list[dict[str, Any]]:
        """Settings of a part that are still to do; none once the time is up."""
        if time.process_time() - self._began > self._seconds:
            return []
        return [setting for setting in sizes.cells(part) if self.key(part, setting) not in self.rows]

    def add(self, part: str, setting: dict[str, Any], found: dict[str, Any]) -> None:
        row = {"part": part, "setting": setting, "found": found, "commit": commit_of(ROOT)}
        key = self.key(part, setting)
        keep(self._path, {"key": key} | row)
        self.rows[key] = row
        print(part, setting, {name: value for name, value in found.items() if name != "text"}, flush=True)

    def of(self, sizes: Sizes) -> list[dict[str, Any]]:
        keys = [self.key(part, setting) for part in PARTS for setting in sizes.cells(part)]
        return [self.rows[key] for key in keys if key in self.rows]


class Bench:
    """A source, and the folders made of it, each when it is first asked for."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.source, self.key = source, key_of(source, KNOWN)
        self.folder = folder / f"exactness-{self.key.master.model[:16]}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tokens, self.plain = TokenMap.of(self.key), load_model(source, Ledger())
        self.tokenizer = self.plain.tokenizer

    def made(self, twin: Twin, kind: Kind) -> Path:
        path = self.folder / f"{twin}-{kind}"
        if path.exists():
            return path
        fresh = path.with_suffix(".part")
        shutil.rmtree(fresh, ignore_errors=True)
        write_twin(twin, self.source, self.key, fresh, kind)
        return fresh.replace(path)

    def pair(self) -> Pair:
        return Pair(self.source, self.made("plain", "f32"), self.made("veiled", "f32"), self.key, self.tokens)

    def staged(self, twin: Twin, weights: str, **more: Any) -> Stage:
        """In bf16 as stored; other types are made of fp32. State is what a server has where it is not told."""
        if weights == "bf16":
            return stage_of(self.made(twin, "bf16"), self.tokenizer, state_type="fp16", **more)
        return stage_of(self.made(twin, "f32"), self.tokenizer, state_type="fp16", weights=weights, **more)


# -- answers ---------------------------------------------------------------------------------------


def run_answers(bench: Bench, cells: Cells, sizes: Sizes) -> None:
    if not cells.open("answers", sizes):
        return
    pair, prompts = bench.pair(), told_prompts(bench.tokenizer, sizes.prompts)
    with ExitStack() as stack:
        proxy = stack.enter_context(proxied(bench, pair))
        one, other = (stack.enter_context(stage_of(path, bench.tokenizer)) for path in (pair.plain, pair.veiled))
        while todo := cells.open("answers", sizes)[:GROUP]:
            asked = [prompts[setting["prompt"]] for setting in todo]
            with one.engine() as engine:
                plain = ask(engine, asked, sizes.new)
            found = through_proxy(proxy, asked, plain, sizes.new)
            rows = compare_all(plain, found, (one.executor, other.executor), bench.tokens)
            for setting, row, answer in zip(todo, rows, plain, strict=True):
                cells.add("answers", setting, told(row) | {"text": answer.text})


def told(row: Compared) -> dict[str, Any]:
    return asdict(row) | {"wrong": row.wrong}


@contextmanager
def proxied(bench: Bench, pair: Pair) -> Iterator[str]:
    """The proxy over HTTP, before a server process of the veiled folder."""
    budget = TokenBudget(bench.folder / "client.spent", bench.key)
    with (
        served(pair.veiled, bench.folder / "packed") as (url, _),
        VeiledEngine(bench.plain, bench.key, budget, url) as engine,
        serving(engine) as (host, port),
    ):
        yield f"http://{host}:{port}/v1"


def through_proxy(url: str, prompts: Sequence[Any], plain: Sequence[GreedyAnswer], new: int) -> list[GreedyAnswer]:
    """What a client of the proxy reads, all prompts at once."""

    def one(prompt: Any) -> GreedyAnswer:
        chat = not isinstance(prompt, str)
        path, asked = ("chat/completions", {"messages": prompt}) if chat else ("completions", {"prompt": prompt})
        body = asked | {"max_tokens": new, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
        reply = httpx.post(f"{url}/{path}", json=body, timeout=600)
        if reply.status_code != 200:
            raise HeadraceError(f"The proxy answered {reply.status_code}: {reply.text}")
        choice = reply.json()["choices"][0]
        text = choice["message"]["content"] if chat else choice["text"]
        return GreedyAnswer(choice["prompt_token_ids"], choice["token_ids"], text)

    with ThreadPoolExecutor(len(prompts)) as pool:
        found = list(pool.map(one, prompts))
    if [each.prompt for each in found] != [each.prompt for each in plain]:
        raise HeadraceError("The proxy made other tokens of a prompt than the plain engine; compare their templates.")
    return found


# -- throughput ------------------------------------------------------------------------------------


def run_throughput(bench: Bench, cells: Cells, sizes: Sizes) -> None:
    """In each round every model decodes the same answer; the round's number turns their order."""
    for weights in sizes.weights:
        if not any(setting["weights"] == weights for setting in cells.open("throughput", sizes)):
            continue
        with paced(partial(bench.staged, weights=weights), bench.tokens, times=4) as engines:
            one_round(engines, 0, sizes.pace)
            for setting in cells.open("throughput", sizes):
                if setting["weights"] == weights:
                    found = one_round(engines, setting["round"], sizes.pace)
                    cells.add("throughput", setting, {twin: each._asdict() for twin, each in found.items()})


# -- quantised -------------------------------------------------------------------------------------


def run_quantised(bench: Bench, cells: Cells, sizes: Sizes) -> None:
    """Every weight type of every model against the plain model in fp32, window by window."""
    if not cells.open("quantised", sizes):
        return
    assert bench.tokenizer is not None
    windows = text_windows(bench.tokenizer, english(None)[1], sizes.tokens)
    order = bench.tokens.veiled(range(bench.plain.spec.vocab))
    with ExitStack() as stack:
        fp32 = stack.enter_context(stage_of(bench.made("plain", "f32"), logits=512))
        stages: dict[tuple[str, str], Stage] = {}
        for number, window in enumerate(windows):
            todo = [setting for setting in cells.open("quantised", sizes) if setting["window"] == number]
            expected = logits_of(fp32.executor, window).copy() if todo else None
            for setting in todo:
                which = setting["model"], setting["weights"]
                if which not in stages:
                    stages[which] = stack.enter_context(bench.staged(*which, logits=512))
                veiled = which[0] == "veiled"
                found = logits_of(stages[which].executor, bench.tokens.veiled(window) if veiled else window)
                found = found[:, order] if veiled else found
                cells.add("quantised", setting, compare_windows(expected, found, window))


RUNS: dict[str, Callable[[Bench, Cells, Sizes], None]] = {
    "answers": run_answers,
    "throughput": run_throughput,
    "quantised": run_quantised,
}


def run(source: Path, sizes: Sizes, parts: Sequence[str], seconds: float = 1e9) -> dict[str, Any]:
    """Runs the cells that are not kept, and gives all that there are, with what they say together."""
    folder = cache_folder() / "privacy"
    bench = Bench(source, folder)
    cells = Cells(folder / f"veil-exactness-{bench.key.master.model[:16]}.jsonl", seconds)
    for part in parts:
        RUNS[part](bench, cells, sizes)
    rows = cells.of(sizes)
    about = {"kind": "veil exactness", "model": bench.plain.name, "types": bench.plain.weight_types,
             "source": bench.key.master.model, "machine": measured_on(), "sizes": asdict(sizes),
             "date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit_of(ROOT),
             "text": english(None)[0], "cells": sum(1 for part in PARTS for _ in sizes.cells(part)),
             "done": len(rows)}  # fmt: skip
    return about | {"bytes": folder_bytes(bench.folder), "summary": summary(rows), "rows": rows}


def folder_bytes(folder: Path) -> dict[str, int]:
    """Of the tensors of each folder that was made."""
    found = sorted(path for path in folder.iterdir() if path.name.partition("-")[0] in TWINS)
    return {path.name: sum(file.stat().st_size for file in path.glob("*.safetensors")) for path in found}


def main() -> None:
    asked = parser(__doc__, PARTS, "veil_exactness")
    asked.add_argument("--quick", action="store_true", help="a few cells of each part, for a look; nothing is written")
    arguments = asked.parse_args()
    try:
        found = run(resolve(arguments.model), QUICK if arguments.quick else Sizes(), arguments.kinds, arguments.seconds)
    except HeadraceError as error:
        sys.exit(str(error))
    print(json.dumps(found["summary"], indent=1))
    if not arguments.quick:
        write(found, arguments.output)


if __name__ == "__main__":
    main()
