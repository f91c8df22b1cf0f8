"""`headrace trace`: views of what `solve --trace` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli import generation as g
from headrace.cli.show import note, print_json, print_json_line

app = typer.Typer(no_args_is_help=True, help="View, export and replay the traces that solve writes.")
File = Annotated[Path, typer.Argument(help="A file that `solve --trace` wrote.")]


@app.command()
def view(file: File, json: g.Json = False) -> None:
    """Print the search tree."""
    from dataclasses import asdict

    from headrace.reason.view import Tree
    from headrace.spec.trace import Trace

    tree = Tree.of(Trace.load(file))
    if json:
        print_json({"best": tree.best, "tokens": tree.tokens, "roots": [asdict(root) for root in tree.roots]})
        return
    from rich.console import Console

    from headrace.cli.solve import picture

    Console(highlight=False).print(picture(tree))


@app.command()
def pairs(file: File) -> None:
    """Print preference pairs as JSON lines: a step that led to the best answer, and a worse sibling of it."""
    from headrace.reason.view import preferences
    from headrace.spec.trace import Trace

    count = 0
    for pair in preferences(Trace.load(file)):
        print_json_line(pair)
        count += 1
    note(f"{count} pairs")


@app.command()
def replay(file: File) -> None:
    """Run the strategy again from the trace alone, without a model, and print its result."""
    import asyncio

    from headrace.reason.solve import replay as replayed
    from headrace.spec.trace import Trace

    print_json(asyncio.run(replayed(Trace.load(file))).as_json())
