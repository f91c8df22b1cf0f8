"""The attacks on veil at full counts: how much of a real vocabulary each recovers, and what it costs.

    python benchmarks/veil_attacks.py [align bigram known-pairs deployed] [--seconds 900] [--output FILE]

A cell is one attack at one setting and one run. Cells are kept in the user's cache as they are done and are not
run twice; with --seconds no new cell is begun after that much processor time. What is done goes to the output.
*deployed* are the attacks on a whole folder of `veil export`, and on what it serves.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kept_rows import Rows, parser, write
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

    def cells(self, attacks: Sequence[str]) -> Iterator[Cell]:
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


def run(subject: Subject, sizes: Sizes, attacks: Sequence[str], path: Path, seconds: float) -> list[dict[str, Any]]:
    """Runs the cells that are not kept, shortest traffic first and tables last, and gives all rows that there are."""
    rows = Rows(path)
    cells = sorted(sizes.cells(attacks), key=lambda cell: (cell.run, cell.setting.get("tokens", 2_000_000)))
    for cell in rows.left(cells, seconds):
        recovery = run_cell(subject, *cell)
        rows.add(cell, {"recovery": recovery.to_json(), "commit": commit_of(ROOT)})
        print(cell.setting, cell.run, recovery, flush=True)
    return rows.of(sizes.cells(ATTACKS))


def main() -> None:
    arguments = parser(__doc__, ATTACKS, "veil_attacks").parse_args()
    try:
        subject = Subject.load(resolve(arguments.model))
        path = cache_folder() / "privacy" / f"veil-attacks-{subject.digest[:16]}.jsonl"
        rows = run(subject, Sizes(), arguments.kinds, path, arguments.seconds)
    except HeadraceError as error:
        sys.exit(str(error))
    wanted = sum(1 for _ in Sizes().cells(ATTACKS))
    about = {"kind": "veil attacks", "model": subject.name, "vocab": subject.vocab, "weights": subject.digest,
             "machine": measured_on(), "scipy": installed("scipy"), "cells": wanted, "done": len(rows),
             "rows": rows}  # fmt: skip
    write(about, arguments.output)


if __name__ == "__main__":
    main()
