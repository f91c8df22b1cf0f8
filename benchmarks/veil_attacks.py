"""The attacks on veil at full counts: how much of a real vocabulary each recovers, and what it costs.

    python benchmarks/veil_attacks.py [align bigram known-pairs deployed] [--seconds 900] [--output FILE]

A cell is one attack at one setting and one run. Cells are kept in the user's cache as they are done and are not
run twice; with --seconds no new cell is begun after that much processor time. What is done goes to the output.
*deployed* are the attacks on a whole folder of `veil export`, and on what it serves.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kept_rows import keep, kept
from veil_subject import Subject, run_cell

from headrace.cli.machine import installed, measured_on
from headrace.evidence.machine import commit_of
from headrace.model.catalogue import cache_folder, resolve
from headrace.spec.errors import HeadraceError

ROOT = Path(__file__).resolve().parents[1]
RECIPES = {"align": 2, "known-pairs-weights": 2}
"""Goes up from 1 when a change makes an attack's kept cells say something else."""
NOISES = (0.0, 0.1, 0.3, 1.0)
TOKENS = (3_000, 30_000, 300_000, 1_000_000)
TOLD = (256, 1024)
RUNS = 3
WRITTEN = (3_000, 30_000)
"""Ids that the veiled model writes as its own oracle."""
READ, TOLD_FIRST, CACHED = 24, 4, 64
"""Tokens of a text whose hidden states are seen, of which the first are told; tokens whose keys are."""
ATTACKS = ("align", "bigram", "known-pairs", "deployed")


class Cell(NamedTuple):
    attack: str
    setting: dict[str, Any]
    run: int

    @property
    def key(self) -> str:
        return json.dumps([RECIPES.get(self.attack, 1), *self], sort_keys=True)


@dataclass
class Sizes:
    """What a run covers; tests take less of everything."""

    noises: tuple[float, ...] = NOISES
    tokens: tuple[int, ...] = TOKENS
    told: tuple[int, ...] = TOLD
    runs: int = RUNS
    written: tuple[int, ...] = WRITTEN
    read: int = READ
    cached: int = CACHED

    def cells(self, attacks: list[str]) -> Iterator[Cell]:
        if "align" in attacks:
            yield from (Cell("align", {"start": "moments", "noise": noise}, 0) for noise in self.noises)
            yield Cell("align", {"start": "invariants", "noise": 0.0}, 0)
        for domain in ("in-domain", "cross-domain"):
            for run in range(self.runs):
                for tokens in self.tokens:
                    about = {"domain": domain, "tokens": tokens}
                    if "bigram" in attacks:
                        yield from (Cell(name, about, run) for name in ("rank-frequency", "bigram"))
                    if "known-pairs" in attacks:
                        yield from (Cell("known-pairs", about | {"told": told}, run) for told in self.told)
        if "known-pairs" in attacks:
            for told in self.told:
                yield Cell("known-pairs-weights", {"noise": 1.0, "told": told}, 0)
        if "deployed" in attacks:
            yield from self.deployed()

    def deployed(self) -> Iterator[Cell]:
        """On what `veil export` writes, as it is served: bf16."""
        about = {"dtype": "bf16"}
        yield Cell("align-artefact", about, 0)
        yield from (Cell("oracle", about | {"written": written}, 0) for written in self.written)
        yield Cell("kv", about | {"positions": self.cached}, 0)
        yield Cell("hidden", about | {"positions": self.read, "told": TOLD_FIRST, "layer": 1}, 0)


def run(subject: Subject, sizes: Sizes, attacks: list[str], path: Path, seconds: float) -> list[dict[str, Any]]:
    """Runs the cells that are not kept, shortest traffic first and tables last, and gives all rows that there are."""
    done, started = kept(path), time.process_time()
    cells = sorted(sizes.cells(attacks), key=lambda cell: (cell.run, cell.setting.get("tokens", 2_000_000)))
    for cell in cells:
        if cell.key in done or time.process_time() - started > seconds:
            continue
        recovery = run_cell(subject, cell.attack, cell.setting, cell.run)
        row = {"key": cell.key, "attack": cell.attack, "setting": cell.setting, "run": cell.run,
               "recovery": recovery.to_json(), "commit": commit_of(ROOT)}  # fmt: skip
        keep(path, row)
        done[cell.key] = row
        print(cell.setting, cell.run, recovery, flush=True)
    return [{name: value for name, value in done[cell.key].items() if name != "key"}
            for cell in sizes.cells(list(ATTACKS)) if cell.key in done]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("attacks", nargs="*", default=list(ATTACKS), help=", ".join(ATTACKS))
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no cell after this much processor time")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "veil_attacks.json")
    arguments = parser.parse_args()
    try:
        subject = Subject.load(resolve(arguments.model))
        path = cache_folder() / "privacy" / f"veil-attacks-{subject.digest[:16]}.jsonl"
        rows = run(subject, Sizes(), arguments.attacks, path, arguments.seconds)
    except HeadraceError as error:
        sys.exit(str(error))
    wanted = sum(1 for _ in Sizes().cells(list(ATTACKS)))
    about = {"kind": "veil attacks", "model": subject.name, "vocab": subject.vocab, "weights": subject.digest,
             "machine": measured_on(), "scipy": installed("scipy"), "cells": wanted, "done": len(rows),
             "rows": rows}  # fmt: skip
    arguments.output.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    print(f"{len(rows)} of {wanted} cells are in {arguments.output}.")


if __name__ == "__main__":
    main()
