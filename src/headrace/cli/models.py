"""`headrace models`: what can be run, and what is here already."""

from __future__ import annotations

from headrace.cli.generation import Json
from headrace.cli.show import megabytes, print_json, print_table


def models(json: Json = False) -> None:
    """List the catalogue and the models in the cache, with licence, size and state."""
    rows = listing()
    if json:
        print_json(rows)
        return
    print_table(
        ("model", "licence", "size", "state", "about"),
        [(r["name"], r["licence"] or "?", megabytes(r["bytes"]), r["state"], r["about"] or "") for r in rows],
    )
