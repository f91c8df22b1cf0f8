"""What the verbs print: errors, progress bars, tables and JSON. Answers go to stdout, the rest to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

Report = Callable[[str, int, int], None]
"""(what, bytes done, bytes in all)"""


EXIT_INTERRUPTED = 130
"""The exit code after Ctrl-C."""


def stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def complain(sentence: str) -> None:
    stderr().print(" ".join(sentence.split()), style="red", markup=False)


def note(text: str) -> None:
    stderr().print(text, style="dim", markup=False)


def prompt_mark(text: str) -> None:
    """Goes to the terminal without an end of line, so that what is typed stands beside it."""
    sys.stderr.write(text)
    sys.stderr.flush()


def print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2), flush=True)


def print_json_line(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False), flush=True)


def write(text: str) -> None:
    """Streams a piece of an answer; what a terminal cannot show is shown escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a terminal; in a file or a pipe one line a row, its cells parted by tabs."""
    if not sys.stdout.isatty():
        for cells in (columns, *rows):
            write("\t".join(" ".join(cell.split()) for cell in cells) + "\n")
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*map(escape, row))
    Console(highlight=False).print(table)


@contextmanager
def progress_bars(quiet: bool = False) -> Iterator[Report | None]:
    """A function to report bytes done to; bars on a terminal, one line a step elsewhere."""
    console = stderr()
    if quiet:
        yield None
    elif not console.is_terminal:
        yield _line_per_step(console)
    else:
        yield from _bars(console)


def _line_per_step(console: Console) -> Report:
    seen: set[str] = set()

    def report(what: str, done: int, total: int) -> None:
        if what not in seen:
            seen.add(what)
            size = f" ({megabytes(total)})" if total else ""
            console.print(f"{what}{size} …", markup=False)

    return report


def _bars(console: Console) -> Iterator[Report]:
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total or None)
            progress.update(tasks[what], completed=done, total=total or None)

        yield report


def megabytes(nbytes: int | None) -> str:
    return "?" if nbytes is None else f"{nbytes / 1e6:,.1f} MB"
