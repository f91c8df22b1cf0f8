"""What the verbs print: errors, progress bars, tables and JSON. Answers go to stdout, the rest to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

Report = Callable[[str, int, int], None]
"""(what, bytes done, bytes in all)"""


EXIT_INTERRUPTED = 130
"""The exit code after Ctrl-C."""


_DIM, _RED = 2, 31


def stderr() -> Console:
    """For what moves on a terminal; single lines do without rich, whose import takes longer than a model's step."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def complain(sentence: str) -> None:
    _say(" ".join(sentence.split()), _RED)


def note(text: str) -> None:
    _say(text, _DIM)


def _say(text: str, style: int) -> None:
    styled = sys.stderr.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    print(f"\x1b[{style}m{text}\x1b[0m" if styled else text, file=sys.stderr, flush=True)


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
    with ExitStack() as display:
        yield None if quiet else _bars(display) if sys.stderr.isatty() else _line_per_step()


def _line_per_step() -> Report:
    seen: set[str] = set()

    def report(what: str, done: int, total: int) -> None:
        if what not in seen:
            seen.add(what)
            size = f" ({megabytes(total)})" if total else ""
            _say(f"{what}{size} …", 0)

    return report


def _bars(display: ExitStack) -> Report:
    """They begin with the first report: most starts have none."""
    shown: list[Progress] = []
    tasks: dict[str, TaskID] = {}

    def report(what: str, done: int, total: int) -> None:
        if not shown:
            shown.append(display.enter_context(_progress()))
        if what not in tasks:
            tasks[what] = shown[0].add_task(what, total=total or None)
        shown[0].update(tasks[what], completed=done, total=total or None)

    return report


def _progress() -> Progress:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=stderr(), transient=True)


Count = Callable[[str, int, int], None]
"""(what, runs done, runs in all)"""


@contextmanager
def progress_counts(quiet: bool = False) -> Iterator[Count | None]:
    """A function to report how many are done; a bar on a terminal, a line each tenth elsewhere."""
    console = stderr()
    if quiet:
        yield None
        return
    if not console.is_terminal:
        yield _line_per_tenth(console)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), Remaining())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda what, done, total: progress.update(task, description=what, completed=done, total=total)


def _line_per_tenth(console: Console) -> Count:
    seen: set[int] = set()

    def report(what: str, done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        if tenth not in seen:
            seen.add(tenth)
            console.print(f"{done} of {total}: {what} …", markup=False)

    return report


def megabytes(nbytes: int | None) -> str:
    """Decimal: 1 MB is a million bytes, as in every size of a file or a package that is shown."""
    return "?" if nbytes is None else f"{nbytes / 1e6:,.1f} MB"
