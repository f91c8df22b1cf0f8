"""`headrace strategies`: what `solve` can do, with parameters, needs and papers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import generation as g
from headrace.cli.show import print_json, print_table

if TYPE_CHECKING:
    from headrace.reason.strategy import Plan

Name = Annotated[str | None, typer.Argument(help="Show this one only, or those of a plan like 'a | b'.")]


def strategies(name: Name = None, json: g.Json = False) -> None:
    """List the strategies of solve."""
    from headrace.reason.strategy import parse, strategies

    known = strategies()
    if name is not None:
        named = _names(parse(name))
        known = {key: one for key, one in known.items() if key in named}
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


def _names(plan: Plan) -> set[str]:
    from headrace.reason.strategy import Joined, Repeated

    if isinstance(plan, Joined):
        return _names(plan.left) | _names(plan.right)
    return _names(plan.plan) if isinstance(plan, Repeated) else {plan.strategy.name}
