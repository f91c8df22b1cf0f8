"""`headrace strategies`: what `solve` can do, with parameters, needs and papers."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli import generation as g
from headrace.cli.show import print_json, print_table

Name = Annotated[str | None, typer.Argument(help="Show this one only.")]


def strategies(name: Name = None, json: g.Json = False) -> None:
    """List the strategies of solve."""
    from headrace.reason.strategy import parse, strategies

    known = strategies()
    if name is not None:
        parse(name)
        known = {name: known[name]} if name in known else known
    if json:
        print_json(
            [
                {
                    "name": one.name,
                    "parameters": one.parameters,
                    "best_by": one.rule,
                    "needs": sorted(one.needs),
                    "paper": one.paper,
                    "summary": one.summary,
                }
                for one in known.values()
            ]
        )
        return
    rows = [
        (
            f"{one.name}({', '.join(f'{key}={value!r}' for key, value in one.parameters.items())})",
            ", ".join(sorted(one.needs)),
            one.paper,
            one.summary,
        )
        for one in known.values()
    ]
    print_table(("strategy", "needs", "paper", "what it does"), rows)
