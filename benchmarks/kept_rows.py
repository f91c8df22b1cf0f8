"""What a benchmark has measured, a line of JSON a cell, in a file that a run which was ended leaves to the next one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


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
