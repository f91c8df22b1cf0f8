"""The split profile at full counts: what its states give away, what noise costs the answer, and what the wire costs.

    python benchmarks/split_inversion.py [exact utility inversion null] [--quick] [--seconds 900] [--output FILE]

A cell is one measurement at one k and noise. Cells are kept in the user's cache as they are done and are not run
twice; with --seconds no new cell is begun after that much processor time. What is done goes to the output.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kept_rows import Rows, parser, write
from split_subject import Subject, run_cell

from headrace.cli.machine import installed, measured_on
from headrace.evidence.machine import commit_of, today
from headrace.model.catalogue import cache_folder, resolve
from headrace.privacy.split.client import profile
from headrace.spec.errors import HeadraceError

ROOT = Path(__file__).resolve().parents[1]
RECIPES = {"exact": 1, "utility": 2, "inversion": 1, "null": 1}
"""Goes up when a change makes a measurement's kept cells say something else."""
KINDS = tuple(RECIPES)


class Cell(NamedTuple):
    kind: str
    setting: dict[str, Any]
    counts: dict[str, int]

    @property
    def key(self) -> str:
        return json.dumps([RECIPES[self.kind], *self], sort_keys=True)


@dataclass(frozen=True)
class Sizes:
    """What a run covers. `prompts` and `length` are of the attack, `fit` the attacker's own tokens."""

    depths: tuple[int, ...] = (0, 2, 4)
    noises: tuple[float, ...] = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)
    answers: int = 8
    tokens: int = 32
    texts: int = 8
    positions: int = 64
    prompts: int = 8
    length: int = 24
    fit: int = 2048

    def cells(self, kinds: Sequence[str]) -> Iterator[Cell]:
        attack = {"prompts": self.prompts, "length": self.length, "fit": self.fit}
        for k in self.depths:
            if "exact" in kinds:
                yield Cell("exact", {"k": k}, {"prompts": self.answers, "tokens": self.tokens})
            for noise in self.noises:
                where = {"k": k, "noise": noise}
                if "utility" in kinds:
                    yield Cell("utility", where, {"prompts": self.texts, "length": self.positions})
                if "inversion" in kinds:
                    yield Cell("inversion", where | {"prior": False}, attack)
                    if noise:
                        yield Cell("inversion", where | {"prior": True}, attack)
            if "null" in kinds:
                yield Cell("null", {"k": k}, attack)


QUICK = Sizes((0, 2), (0.0, 1.0), answers=1, tokens=4, texts=1, positions=16, prompts=2, length=6, fit=640)


def run(subject: Subject, sizes: Sizes, kinds: Sequence[str], path: Path, seconds: float) -> list[dict[str, Any]]:
    """Runs the cells of these kinds that are not kept and gives the rows of all kinds that there are."""
    rows = Rows(path)
    for cell in rows.left(sizes.cells(kinds), seconds):
        found = run_cell(subject, *cell)
        rows.add(cell, {"found": found, "commit": commit_of(ROOT)})
        print(cell.kind, cell.setting, found, flush=True)
    return rows.of(sizes.cells(KINDS))


def results(subject: Subject, sizes: Sizes, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"kind": "split inversion", "model": subject.name, "vocab": subject.spec.vocab,
            "hidden": subject.spec.hidden, "layers": len(subject.spec.layers), "machine": measured_on(),
            "scipy": installed("scipy"), "date": today(), "commit": commit_of(ROOT), "sizes": asdict(sizes),
            "cells": sum(1 for _ in sizes.cells(KINDS)), "done": len(rows),
            "privacy_report": report_lines(rows), "rows": rows}  # fmt: skip


def report_lines(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of `headrace privacy report`: each cut without noise, and with noise as strong as the states."""
    slower = {row["setting"]["k"]: row["found"]["slowdown"] for row in rows if row["kind"] == "exact"}
    best: dict[tuple[int, float], dict[str, Any]] = {}
    for row in rows:
        where = row["setting"]["k"], row["setting"].get("noise")
        if row["kind"] == "inversion" and where[1] in (0.0, 1.0):
            best[where] = max(
                best.get(where, row["found"]["mass"]), row["found"]["mass"], key=lambda each: each["value"]
            )
    return [
        {"profile": profile(k, noise), "slowdown": slower.get(k), "recovery": share, "attack": "inversion"}
        for (k, noise), share in sorted(best.items(), key=lambda item: item[0])
    ]


def main() -> None:
    asked = parser(__doc__, KINDS, "split_inversion")
    asked.add_argument("--threads", type=int, default=None, help="compute threads, here and on the server")
    asked.add_argument("--quick", action="store_true", help="small counts")
    arguments = asked.parse_args()
    sizes = QUICK if arguments.quick else Sizes()
    try:
        subject = Subject.load(resolve(arguments.model), arguments.threads)
        path = cache_folder() / "privacy" / f"split-inversion-{subject.digest[:16]}.jsonl"
        rows = run(subject, sizes, arguments.kinds, path, arguments.seconds)
    except HeadraceError as error:
        sys.exit(str(error))
    write(results(subject, sizes, rows), arguments.output)


if __name__ == "__main__":
    main()
