"""A running engine of either side: a process that is given orders and gives figures."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peer_runners.protocol import Cell

SETTLE_SECONDS = 0.3
SHORT_PREFILL_TOKENS = 1024
SHORT_REPEATS = 3


class CellFailed(Exception):
    """The engine cannot run the cell; the text says why."""


@dataclass(frozen=True)
class Side:
    """How an engine is started: its interpreter, its runner, the weights it reads."""

    name: str
    python: Path
    runner: Path
    model: Path
    threads: int
    vocab: int
    log: Path
    options: tuple[str, ...] = ()

    def start(self, rows: int, length: int, cache_mib: int, *flags: str) -> subprocess.Popen[str]:
        numbers = {"threads": self.threads, "rows": rows, "length": length, "cache-mib": cache_mib, "vocab": self.vocab}
        command = [str(self.python), str(self.runner), str(self.model)]
        command += [word for name, value in numbers.items() for word in (f"--{name}", str(value))]
        command += [word for option in self.options for word in ("--option", option)]
        environment = os.environ | {"OMP_NUM_THREADS": str(self.threads), "TOKENIZERS_PARALLELISM": "false"}
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as log:
            return subprocess.Popen(
                [*command, *flags],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )


class Bystanders:
    """How many cores other work took, the hypervisor's steal included, since the start of the `with` block."""

    def __init__(self, *ours: int) -> None:
        self._ours = ours
        self.cores = 0.0

    def __enter__(self) -> Bystanders:
        self._began = (time.perf_counter(), machine_seconds(), sum(map(process_seconds, self._ours)))
        return self

    def __exit__(self, *error: object) -> None:
        began, machine, ours = self._began
        others = machine_seconds() - machine - (sum(map(process_seconds, self._ours)) - ours)
        self.cores = max(others, 0.0) / (time.perf_counter() - began)


def machine_seconds() -> float:
    """Seconds that all cores together were not idle: user, nice, system, interrupts, steal."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def process_seconds(pid: int) -> float:
    """Processor seconds of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


class Session:
    """A loaded engine. `about`: its version and the weights it reads."""

    def __init__(self, side: Side, rows: int, length: int, cache_mib: int) -> None:
        self.side = side
        self._process = side.start(rows, length, cache_mib)
        self.pid = self._process.pid
        self.about = self._read()

    def prepare(self, cell: Cell, seed: int) -> None:
        self._ask("prepare", cell, seed)

    def measure(self, cell: Cell, seed: int) -> float:
        """Of a short prefill the median of several, each of other prompts."""
        time.sleep(SETTLE_SECONDS)
        short = cell.measure == "prefill" and cell.batch * cell.prompt <= SHORT_PREFILL_TOKENS
        repeats = SHORT_REPEATS if short else 1
        return statistics.median(self._ask("measure", cell, 1000 * seed + i)["value"] for i in range(repeats))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _ask(self, what: str, cell: Cell, seed: int) -> dict[str, Any]:
        assert self._process.stdin is not None
        print(json.dumps({"do": what, "seed": seed, **asdict(cell)}), file=self._process.stdin, flush=True)
        return self._read()

    def _read(self) -> dict[str, Any]:
        return read_reply(self._process, self.side)


def read_reply(process: subprocess.Popen[str], side: Side) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise CellFailed(f"{side.name} ended with {process.wait()}; its last words are in {side.log}")
    reply: dict[str, Any] = json.loads(line)
    if "error" in reply:
        raise CellFailed(f"{side.name}: {reply['error']}")
    return reply


def whole_process(side: Side, rows: int, length: int, cache_mib: int) -> tuple[dict[str, Any], dict[str, float]]:
    """A fresh process from its start to its first token, then some decoding: what it is, seconds and peak MiB."""
    began = time.perf_counter()
    process = side.start(rows, length, cache_mib, "--first-token")
    read_reply(process, side)
    seconds = time.perf_counter() - began
    about = read_reply(process, side)
    process.communicate()
    return about, {"startup": seconds, "peak_memory": about["mib"]}
