"""`headrace models`: what can be run, and what is here already."""

from __future__ import annotations

from typing import Any

from headrace.cli.generation import Json
from headrace.cli.show import megabytes, print_json, print_table


def models(json: Json = False) -> None:
    """List the catalogue and the models in the cache, with licence, size and state."""
    rows = listing()
    if json:
        print_json(rows)
        return
    cells = [(r["name"], r["title"], r["licence"] or "not known", megabytes(r["bytes"]), r["state"]) for r in rows]
    print_table(("model", "about", "licence", "size", "state"), cells)


def listing() -> list[dict[str, Any]]:
    """The catalogue first, then whatever else was pulled. `state`: `here`, or `to pull` (see `headrace pull`)."""
    from headrace.model.catalogue import ENTRIES, local_models

    here = {model.name: model for model in local_models()}
    rows = []
    for entry in ENTRIES.values():
        local = here.pop(entry.name, None)
        size = local.bytes if local else entry.bytes
        rows.append(_row(entry.name, entry.title, entry.licence, size, entry.source, local and local.path))
    for model in here.values():
        rows.append(_row(model.name, "pulled by id", model.licence, model.bytes, model.source, model.path))
    return rows


def _row(name: str, title: str, licence: str, nbytes: int, source: str, path: Any) -> dict[str, Any]:
    return {
        "name": name,
        "title": title,
        "licence": licence,
        "bytes": nbytes,
        "source": source,
        "state": "here" if path else "to pull",
        "path": str(path) if path else None,
    }
