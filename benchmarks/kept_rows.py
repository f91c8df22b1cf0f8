"""What a benchmark of cells is asked, and its file of rows, a line of JSON a cell, from which the next run goes on."""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

RESULTS = Path(__file__).parent / "results"


class Cell(Protocol):
    """A NamedTuple. Its `key` also says by which recipe it was measured."""

    @property
    def key(self) -> str: ...

    def _asdict(self) -> dict[str, Any]: ...


SomeCell = TypeVar("SomeCell", bound=Cell)


class Rows:
    """The cells in a file: those of earlier runs, and those of this one as they are done."""

    def __init__(self, path: Path) -> None:
        self._path, self._done = path, kept(path)

    def left(
        self, cells: Iterable[SomeCell], seconds: float, clock: Callable[[], float] = time.process_time
    ) -> Iterator[SomeCell]:
        """Those that are not kept; none is begun after so many seconds of the clock."""
        started = clock()
        for cell in cells:
            if cell.key not in self._done and clock() - started <= seconds:
                yield cell

    def add(self, cell: Cell, found: dict[str, Any]) -> None:
        row = {"key": cell.key, **cell._asdict(), **found}
        keep(self._path, row)
        self._done[cell.key] = row

    def of(self, cells: Iterable[Cell]) -> list[dict[str, Any]]:
        """The rows that there are of these cells, without their keys."""
        rows = [self._done[cell.key] for cell in cells if cell.key in self._done]
        return [{name: value for name, value in row.items() if name != "key"} for row in rows]


def kept(path: Path) -> dict[str, dict[str, Any]]:
    """Rows by their `key`; a line that was cut off is left out."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        found[row["key"]] = row
    return found


def keep(path: Path, row: dict[str, Any]) -> None:
    """Adds a row on a line of its own, even behind one that was cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_bytes() if path.exists() else b""
    with path.open("a", encoding="utf-8") as file:
        file.write(("" if before[-1:] in (b"", b"\n") else "\n") + json.dumps(row) + "\n")


def parser(about: str, kinds: Sequence[str], name: str) -> ArgumentParser:
    """The arguments of every benchmark of cells. `kinds` may be run alone; `name`: of its file of results."""
    found = ArgumentParser(description=about.split("\n")[0])
    found.add_argument("kinds", nargs="*", default=list(kinds), help=", ".join(kinds))
    found.add_argument("--model", default="smollm2-135m")
    found.add_argument("--seconds", type=float, default=1e9, help="begin no cell after this much processor time")
    found.add_argument("--output", type=Path, default=RESULTS / f"{name}.json")
    return found


def write(found: dict[str, Any], output: Path) -> None:
    """Results that say how many `cells` there should be and how many are `done`."""
    output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{found['done']} of {found['cells']} cells are in {output}.")
