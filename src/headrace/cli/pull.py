"""`headrace pull`: fetch a model into the cache."""

from __future__ import annotations

from headrace.cli.generation import Json, ModelName
from headrace.cli.show import print_json, progress_bars


def pull(name: ModelName, json: Json = False) -> None:
    """Fetch a model, check its sha256 and print where it lies."""
    from headrace.model.catalogue import resolve

    with progress_bars(quiet=json) as report:
        path = resolve(name, progress=report)
    if json:
        print_json({"name": name, "path": str(path), "bytes": path.stat().st_size if path.is_file() else None})
    else:
        print(path)
