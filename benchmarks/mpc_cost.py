"""What computation on secret shares costs a model, beside the same model in plain numbers on the native backend.

    python benchmarks/mpc_cost.py [plain pass] [--model smollm2-135m] [--tokens 16] [--quick] [--seconds 900]
        [--output FILE]

A cell is a pass over a prompt by one protocol's parties, all on this machine (seconds, bytes, messages, and rounds by
the formula of each part), or the engine's prefill of the same tokens. The model is llama-shaped, or lm-t-small, which
is trained here. Cells are kept in the user's cache as they are done and are not run twice; with --seconds no new cell
is begun after that much processor time, the parties' included. What is done goes to the output, and its lines into
`headrace privacy report`.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from kept_rows import Rows, parser, write

from headrace import Engine
from headrace.cli.machine import measured_on
from headrace.evidence.machine import commit_of, today
from headrace.model.catalogue import cache_folder, resolve
from headrace.model.loading import LoadedModel, load_model
from headrace.privacy.mpc import approximations, price
from headrace.privacy.mpc.environment import PACKAGES, make_worker
from headrace.privacy.mpc.inference import SecretDecoder
from headrace.privacy.mpc.session import Kind, Session, Setup
from headrace.privacy.mpc.weights import Prepared, for_shares, plain_logits, shape_of
from headrace.reason.tasks.fixtures import fixture
from headrace.spec.errors import HeadraceError
from headrace.spec.ledger import Ledger
from headrace.spec.options import EngineOptions

ROOT = Path(__file__).resolve().parents[1]
RECIPES = {"plain": 1, "pass": 1}
"""Goes up when a change makes a measurement's kept cells say something else."""
KINDS = tuple(RECIPES)
PROTOCOLS: tuple[Kind, ...] = ("aby3", "semi2k")
RUNTIME = PACKAGES[0]
ATTACK = "none was run"


class Cell(NamedTuple):
    kind: str
    setting: dict[str, Any]

    @property
    def key(self) -> str:
        return json.dumps([RECIPES[self.kind], *self], sort_keys=True)


@dataclass(frozen=True)
class Sizes:
    """What a run covers. `rounds`: how often the plain prefill is timed."""

    tokens: int = 16
    protocols: tuple[Kind, ...] = PROTOCOLS
    rounds: int = 5

    def cells(self, kinds: Sequence[str]) -> Iterator[Cell]:
        if "plain" in kinds:
            yield Cell("plain", {"tokens": self.tokens, "rounds": self.rounds})
        if "pass" in kinds:
            for protocol in self.protocols:
                yield Cell("pass", {"protocol": protocol, "tokens": self.tokens, "runtime": RUNTIME})


class Subject:
    """A model, in a file and loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def loaded(self) -> LoadedModel:
        return load_model(self.path, Ledger())

    @cached_property
    def digest(self) -> str:
        return sha256(self.loaded.weights.weights["embed.weight"].numpy().tobytes()).hexdigest()  # type: ignore[attr-defined]

    def prompt(self, count: int) -> list[int]:
        return [number % self.loaded.spec.vocab for number in range(7, 7 + count)]


def run(subject: Subject, sizes: Sizes, kinds: Sequence[str], path: Path, seconds: float) -> list[dict[str, Any]]:
    """Runs the cells of these kinds that are not kept and gives the rows of all kinds that there are."""
    rows = Rows(path)
    for cell in rows.left(sizes.cells(kinds), seconds, processor_time):
        found = MEASURES[cell.kind](subject, **cell.setting)
        rows.add(cell, {"found": found, "commit": commit_of(ROOT)})
        print(cell.kind, cell.setting, {k: v for k, v in found.items() if k != "by_part"}, flush=True)
    return rows.of(sizes.cells(KINDS))


def processor_time() -> float:
    """Seconds of this process and of those it has waited for: a session's parties, once it is closed."""
    return sum(os.times()[:4])


def time_plain(subject: Subject, tokens: int, rounds: int) -> dict[str, Any]:
    """Median seconds a token of the engine's prefill, one thread, no cache."""
    found, prompt = [], subject.prompt(tokens)
    with Engine.load(str(subject.path), options=EngineOptions(threads=1, prefix_cache=False)) as engine:
        for _ in range(rounds):
            sequence, began = engine.open_now(prompt[:1]), time.perf_counter()
            sequence.score([prompt[1:]]).result()
            found.append((time.perf_counter() - began) / (tokens - 1))
            sequence.drop()
    return {"seconds_a_token": statistics.median(found), "seconds": found}


def time_pass(subject: Subject, protocol: Kind, tokens: int, runtime: str) -> dict[str, Any]:
    """One pass on shares, its logits against plain numbers, and what the formulas say of each part."""
    loaded, prompt = subject.loaded, subject.prompt(tokens)
    shape = shape_of(loaded.spec, tokens)
    weights = for_shares(loaded, shape)
    with Session(make_worker(print)) as session:
        session.open(Setup(protocol))
        decoder = SecretDecoder(session, weights, shape, keep=False)
        ours = decoder.logits(prompt, rows=1)[0]
    wanted = plain_logits(Prepared(loaded, shape), shape, approximations.exact(), prompt)[-1]
    parts, spent = price.forward(price.PROTOCOLS[protocol], shape, weights.calm, rows=1), decoder.spent
    return {"seconds": spent.seconds, "bytes": spent.bytes, "messages": spent.messages, "peak_bytes": spent.peak,
            "formula": asdict(price.total(parts.values())),
            "by_part": {name: asdict(cost) for name, cost in parts.items()},
            "logit_error": float(np.abs(ours - wanted).max()),
            "same_token": bool(ours.argmax() == wanted.argmax())}  # fmt: skip


MEASURES = {"plain": time_plain, "pass": time_pass}


def results(subject: Subject, sizes: Sizes, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"kind": "cost of secret shares", "model": subject.loaded.name, "tokens": sizes.tokens,
            "machine": measured_on(), "packages": PACKAGES, "date": today(), "commit": commit_of(ROOT),
            "cells": sum(1 for _ in sizes.cells(KINDS)), "done": len(rows),
            "privacy_report": report_lines(rows), "rows": rows}  # fmt: skip


def report_lines(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of `headrace privacy report`: seconds a token over those of the plain prefill, once both are measured."""
    plain = next((row["found"]["seconds_a_token"] for row in rows if row["kind"] == "plain"), None)
    passes = [row for row in rows if row["kind"] == "pass"]
    return [{"profile": f"mpc:{row['setting']['protocol']}",
             "slowdown": row["found"]["seconds"] / row["setting"]["tokens"] / plain if plain else None,
             "recovery": None, "attack": ATTACK} for row in passes]  # fmt: skip


def main() -> None:
    asked = parser(__doc__, KINDS, "mpc_cost")
    asked.add_argument("--tokens", type=int, default=16)
    asked.add_argument("--quick", action="store_true", help="lm-t-small, 8 tokens, two parties")
    arguments = asked.parse_args()
    name = "lm-t-small" if arguments.quick else arguments.model
    sizes = Sizes(8, ("semi2k",)) if arguments.quick else Sizes(arguments.tokens)
    try:
        subject = Subject(fixture(name) if name.startswith("lm-t") else resolve(name))
        path = cache_folder() / "privacy" / f"mpc-cost-{subject.digest[:16]}.jsonl"
        rows = run(subject, sizes, arguments.kinds, path, arguments.seconds)
    except HeadraceError as error:
        sys.exit(str(error))
    write(results(subject, sizes, rows), arguments.output)


if __name__ == "__main__":
    main()
