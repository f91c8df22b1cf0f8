"""The audit's trial at full counts: adapters of SmolLM2 trained on canaries, as they stand, early stopped and noisy.

    python benchmarks/audit.py [--seeds 0 1 2] [--seconds 900] [--trial FILE] [--output FILE]

A cell is a seed and a variant. Cells are kept in the user's cache as they are done and are not run twice; with
--seconds no new cell is begun after that much processor time. What is done goes to the output.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from headrace.cli.machine import measured_on
from headrace.cli.show import progress_counts
from headrace.evidence.machine import commit_of, today
from headrace.privacy.audit.trial import SMOLLM2, Cell, Reports, cells_of, read_trial, run_trial
from headrace.spec.errors import HeadraceError

ROOT = Path(__file__).resolve().parents[1]


def as_rows(cells: dict[Cell, Reports]) -> list[dict[str, Any]]:
    return [
        {**cell._asdict(), "reports": {name: report.to_json() for name, report in reports.items()}}
        for cell, reports in cells.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no cell after this much processor time")
    parser.add_argument("--trial", type=Path, default=SMOLLM2)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "audit.json")
    arguments = parser.parse_args()
    try:
        trial = read_trial(arguments.trial)
        with progress_counts() as progress:
            cells = run_trial(trial, arguments.seeds, seconds=arguments.seconds, progress=progress)
    except HeadraceError as error:
        sys.exit(str(error))
    for cell, reports in cells.items():
        for name, report in reports.items():
            print(cell.seed, cell.variant, name, report.verdict)
    wanted = len(cells_of(arguments.seeds))
    about = {"kind": "audit", "trial": msgspec.to_builtins(trial), "machine": measured_on(), "date": today(),
             "commit": commit_of(ROOT), "cells": wanted, "done": len(cells), "rows": as_rows(cells)}  # fmt: skip
    arguments.output.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    print(f"{len(cells)} of {wanted} cells are in {arguments.output}.")


if __name__ == "__main__":
    main()
