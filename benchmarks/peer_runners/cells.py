"""What is measured, and the record of what has been: one JSON line for each round of each cell."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path

from peer_runners.protocol import Cell

HIGHER_IS_BETTER = ("decode", "prefill")
QUIET = 0.2
WHOLE_PROCESS = ("startup", "peak_memory")


@dataclass(frozen=True)
class Workload:
    """A model of the catalogue with its cells."""

    model: str
    cells: tuple[Cell, ...]

    @property
    def rows(self) -> int:
        return max(cell.batch for cell in self.cells)

    @property
    def length(self) -> int:
        """The longest row, with room for what engines keep in reserve."""
        return max(cell.prompt + cell.new for cell in self.cells) + 64


def decode(batch: int, prompt: int) -> Cell:
    """Enough tokens for a second or so on the slower engines."""
    return Cell("decode", batch, prompt, {1: 64, 4: 48, 8: 48, 32: 32}.get(batch, 24))


WORKLOADS = (
    Workload(
        "smollm2-135m",
        (
            *(decode(batch, 128) for batch in (1, 4, 8, 32, 128)),
            *(decode(batch, 1024) for batch in (1, 4, 8, 32)),
            *(Cell("prefill", 1, prompt, 1) for prompt in (128, 1024, 4096)),
            Cell("prefill", 32, 128, 1),
            Cell("ttft", 11, 512, 96),
            Cell("startup", 1, 16, 1),
            Cell("peak_memory", 8, 128, 32),
        ),
    ),
    *(
        Workload(model, (decode(1, 128), decode(8, 128), Cell("prefill", 1, 1024, 1)))
        for model in ("qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b")
    ),
)
CORE = tuple(
    f"smollm2-135m/{what}"
    for what in (*(f"decode/{b}x{c}" for c in (128, 1024) for b in (1, 8, 32)), "prefill/1x128", "prefill/1x1024")
)


def name_of(model: str, cell: Cell) -> str:
    return f"{model}/{cell.measure}/{cell.batch}x{cell.prompt}"


def chosen(models: Iterable[str], patterns: Iterable[str]) -> Iterator[tuple[Workload, list[Cell]]]:
    """The workloads of `models`, each with the cells that match one of the patterns ("core" and "all" are names)."""
    groups = {"core": CORE, "all": ("*",)}
    wanted = [p for pattern in patterns for p in groups.get(pattern, (pattern,))]
    for workload in WORKLOADS:
        cells = [c for c in workload.cells if any(fnmatch(name_of(workload.model, c), p) for p in wanted)]
        if workload.model in models and cells:
            yield workload, cells


@dataclass(frozen=True)
class Round:
    """A pair of measurements. `revision` names the sources behind `ours`; `setting`: machine and threads."""

    cell: str
    peer: str
    peer_version: str
    weights: str
    profile: str
    revision: str
    setting: str
    ours: float
    theirs: float
    bystanders: float
    """Cores that other processes took meanwhile."""
    at: str

    @property
    def ratio(self) -> float:
        """Above 1: Headrace is better."""
        higher = self.cell.split("/")[1] in HIGHER_IS_BETTER
        return self.ours / self.theirs if higher else self.theirs / self.ours


class Record:
    """The file of rounds; a run that was cut off goes on where it ended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.rounds = [Round(**json.loads(line)) for line in lines if line.strip()]

    def add(self, done: Round) -> None:
        self.rounds.append(done)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(done)) + "\n")

    def of(self, setting: str, revision: str | None, disturbed: bool) -> dict[tuple[str, str, str], list[Round]]:
        """{(cell, peer, profile): rounds} of one setting, of one revision or of the last one measured; quiet ones
        or all."""
        found: defaultdict[tuple[str, str, str], list[Round]] = defaultdict(list)
        for done in self.rounds:
            fit = disturbed or done.bystanders <= QUIET
            if fit and done.setting == setting and revision in (None, done.revision):
                found[done.cell, done.peer, done.profile].append(done)
        last = {key: rounds[-1].revision for key, rounds in found.items()}
        return {key: [r for r in rounds if r.revision == last[key]] for key, rounds in found.items()}
