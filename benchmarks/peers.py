"""Headrace against llama.cpp, OpenVINO GenAI, transformers and vLLM on this machine.

Each peer runs in an environment of its own, at its best settings, with as many threads as Headrace and the same
tokens; both engines stay loaded and are measured in turn. Rounds are kept in the cache folder, so a run that was cut
off goes on where it ended; rounds during which other work took a fifth of a core or more are not counted and are
measured again by the next run.

    python benchmarks/peers.py --install-only
    python benchmarks/peers.py [--peer llama.cpp --peer vllm] [--cells core] [--rounds 3]
    python benchmarks/peers.py --report
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from peer_runners import limits, report
from peer_runners.cells import QUIET, WHOLE_PROCESS, WORKLOADS, Record, Round, Workload, chosen, name_of
from peer_runners.install import HERE, PEERS, Peer, install, python_of, weights_for
from peer_runners.protocol import Cell
from peer_runners.session import Bystanders, CellFailed, Session, Side, whole_process

from headrace.evidence.machine import describe_machine, today
from headrace.model.catalogue import find_local

Figure: TypeAlias = tuple[dict[str, Any], float]
CACHE = Path.home() / ".cache/headrace/peers"
RESULTS = Path(__file__).parent / "results"
LOADED_CACHE_MIB, FRESH_CACHE_MIB = 2048, 256


class Comparison:
    """One peer against Headrace on one model."""

    def __init__(self, args: argparse.Namespace, record: Record, peer: Peer, workload: Workload, gguf: Path) -> None:
        self.args, self.record, self.peer, self.workload = args, record, peer, workload
        self.setting, self.revision = setting_of(args.threads), revision_of(args.option)
        vocab = limits.geometry(gguf).vocab
        logs = args.cache / "logs"
        self.ours = Side(
            "headrace",
            Path(sys.executable),
            HERE / "run_headrace.py",
            gguf,
            args.threads,
            vocab,
            logs / "headrace.log",
            tuple(args.option),
        )
        self.theirs = Side(
            peer.name,
            python_of(args.cache, peer.name),
            HERE / peer.runner,
            weights_for(args.cache, peer, gguf, workload.model),
            args.threads,
            vocab,
            logs / f"{peer.name}.log",
        )

    def missing(self, cell: Cell) -> range:
        """Numbers of the rounds that are still to be measured with these sources."""
        kept = self.record.of(self.setting, self.revision, self.args.disturbed)
        this = (name_of(self.workload.model, cell), self.peer.name)
        done = sum(len(rounds) for key, rounds in kept.items() if key[:2] == this)
        return range(0 if self.args.fresh else done, self.args.rounds)

    def run(self, cells: list[Cell]) -> None:
        """An engine that fails costs its cells and is named; the others go on."""
        todo = [cell for cell in cells if self.missing(cell)]
        kinds = {
            self.run_processes: [cell for cell in todo if cell.measure in WHOLE_PROCESS],
            self.run_loaded: [cell for cell in todo if cell.measure not in WHOLE_PROCESS],
        }
        for run, some in kinds.items():
            try:
                if some:
                    run(some)
            except (CellFailed, BrokenPipeError) as failure:
                print(f"{self.workload.model} with {self.peer.name} given up: {failure}", flush=True)

    def run_loaded(self, cells: list[Cell]) -> None:
        """Both engines stay loaded; the one that goes first changes with every round."""
        size = (self.workload.rows, self.workload.length, LOADED_CACHE_MIB)
        ours = Session(self.ours, *size)
        try:
            theirs = Session(self.theirs, *size)
            try:
                for cell in cells:
                    self.run_cell(cell, ours, theirs)
            finally:
                theirs.close()
        finally:
            ours.close()

    def run_cell(self, cell: Cell, ours: Session, theirs: Session) -> None:
        sides = (ours, theirs)
        try:
            for side in sides:
                side.prepare(cell, seed=0)
            for number in self.missing(cell):
                order = sides if number % 2 == 0 else sides[::-1]
                seed = 0 if cell.measure == "decode" else number + 1
                with Bystanders(ours.pid, theirs.pid) as others:
                    values = {side: side.measure(cell, seed) for side in order}
                self.keep(cell, (ours.about, values[ours]), (theirs.about, values[theirs]), others.cores)
        except CellFailed as failure:
            print(f"{name_of(self.workload.model, cell)} left out: {failure}", flush=True)

    def run_processes(self, cells: list[Cell]) -> None:
        """Start-up and memory come from the same fresh processes. One start before them fills the disk's caches."""
        size = (self.workload.rows, self.workload.length, FRESH_CACHE_MIB)
        rounds = max((self.missing(cell) for cell in cells), key=len)
        sides = (self.ours, self.theirs)
        for side in sides:
            whole_process(side, *size)
        for number in rounds:
            order = sides if number % 2 == 0 else sides[::-1]
            with Bystanders(os.getpid()) as others:
                figures = {side: whole_process(side, *size) for side in order}
            (about_us, ours), (about_them, theirs) = figures[self.ours], figures[self.theirs]
            for cell in cells:
                pair = ((about_us, ours[cell.measure]), (about_them, theirs[cell.measure]))
                self.keep(cell, *pair, others.cores)

    def keep(self, cell: Cell, ours: Figure, theirs: Figure, bystanders: float) -> None:
        (about_us, our), (about_them, their) = ours, theirs
        done = Round(
            cell=name_of(self.workload.model, cell),
            peer=self.peer.name,
            peer_version=about_them["version"],
            weights=about_them["weights"],
            profile=about_us["version"],
            revision=self.revision,
            setting=self.setting,
            ours=our,
            theirs=their,
            bystanders=round(bystanders, 3),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self.record.add(done)
        noise = "" if bystanders <= QUIET else f"   disturbed: others took {bystanders:.1f} cores"
        pair = f"{report.figure(our)} : {report.figure(their)}"
        print(f"{done.cell:40} {self.peer.name:12} {pair:>20}   {done.ratio:.2f}{noise}", flush=True)


def setting_of(threads: int) -> str:
    return f"{describe_machine()}, {threads} threads"


def revision_of(options: list[str]) -> str:
    """A hash of the sources as they lie in the working tree, and of the engine's options."""
    root = Path(__file__).parents[1]

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True).stdout

    sources = git("rev-parse", "HEAD:src") + git("diff", "HEAD", "--", "src")
    return hashlib.sha256((sources + " ".join(sorted(options))).encode()).hexdigest()[:12]


def write_report(args: argparse.Namespace, record: Record) -> None:
    rounds = record.of(setting_of(args.threads), None, args.disturbed)
    paths = {w.model: find_local(w.model) for w in WORKLOADS}
    models = {name: limits.geometry(found.path) for name, found in paths.items() if found}
    kept = args.cache / "limits.json"
    measured = json.loads(kept.read_text()) if kept.exists() else None
    rows = report.rows_of(rounds, models, measured)
    if not rows:
        raise SystemExit("No undisturbed round of this machine and these threads is there; run this without --report.")
    profiles = sorted({done.profile for several in rounds.values() for done in several})
    result = {
        "machine": setting_of(args.threads),
        "date": today(),
        "headrace": profiles,
        "limits": {"formula": limits.__doc__, "measured": measured},
        "rows": rows,
    }
    path = args.output or RESULTS / f"peers-{today()}.json"
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(report.table(rows), f"\nwritten: {path}", sep="\n")


def probe_limits(args: argparse.Namespace) -> None:
    """Kept with the highest figures of all runs: other work on the machine can only lower them."""
    path = args.cache / "limits.json"
    measured = limits.probe(args.cache, args.threads)
    if path.exists():
        before = json.loads(path.read_text())
        measured = {
            kind: {name: max(rate, before[kind].get(name, 0)) for name, rate in rates.items()}
            for kind, rates in measured.items()
        }
    path.write_text(json.dumps(measured, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", action="append", choices=list(PEERS), help="may be repeated; default: all")
    parser.add_argument("--model", action="append", choices=[w.model for w in WORKLOADS], help="default: those pulled")
    parser.add_argument("--cells", nargs="+", default=["all"], help='"core", "all", or patterns: "*/decode/8x*"')
    parser.add_argument("--rounds", type=int, default=3, help="pairs in each cell")
    parser.add_argument("--threads", type=int, default=2, help="of every engine")
    parser.add_argument("--option", action="append", default=[], help="Headrace's, NAME=VALUE, as backend=native")
    parser.add_argument("--cache", type=Path, default=CACHE, help="environments, weights and rounds")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/peers-DATE.json")
    parser.add_argument("--fresh", action="store_true", help="measure cells again that are there already")
    parser.add_argument("--disturbed", action="store_true", help="count rounds during which other work ran as well")
    parser.add_argument("--install-only", action="store_true")
    parser.add_argument("--report", action="store_true", help="only write and print the tables")
    return parser.parse_args()


def main() -> None:
    args = parse()
    record = Record(args.cache / "rounds.jsonl")
    peers = [PEERS[name] for name in args.peer or PEERS]
    if not args.report:
        for peer in peers:
            install(args.cache, peer)
    if args.install_only:
        return
    if not args.report:
        probe_limits(args)
        models = args.model or [w.model for w in WORKLOADS if find_local(w.model)]
        for workload, cells in chosen(models, args.cells):
            found = find_local(workload.model)
            if found is None:
                raise SystemExit(f"{workload.model} is not here; pull it first: headrace pull {workload.model}")
            for peer in peers:
                Comparison(args, record, peer, workload, found.path).run(cells)
    write_report(args, record)


if __name__ == "__main__":
    main()
