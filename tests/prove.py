"""`make prove`: runs every acceptance item whose result is missing, failed or older than the code it covers.

Items stand in results/prove/items.toml: an id, what it shows, pytest node ids (run with `-m prove`) or a
command, and the globs of the files it covers; the test files it names are covered as well. Each result is
written as results/prove/<id>.json as soon as it is known, so an interrupted run goes on where it stopped.

    python tests/prove.py [--list] [--force] [ID ...]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results" / "prove"


@dataclass(frozen=True)
class Item:
    id: str
    what: str
    covers: tuple[str, ...]
    tests: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    pending: str = ""
    """Why no result is committed yet; empty where one has to be."""

    def watched(self) -> tuple[str, ...]:
        """Globs of all files whose change makes the result stale: those it covers and the tests themselves."""
        return self.covers + tuple(node.partition("::")[0] for node in self.tests)

    def shell_line(self, figures: Path) -> list[str]:
        """The command; in it `{figures}` is the JSON file to which figures are written."""
        if self.tests:
            return [sys.executable, "-m", "pytest", "-m", "prove", f"--figures={figures}", *self.tests]
        words = [word.replace("{figures}", str(figures)) for word in self.command]
        return [sys.executable if word == "python" else word for word in words]

    def shown_command(self) -> str:
        """As a person would type it."""
        words = ["pytest", "-m", "prove", *self.tests] if self.tests else list(self.command)
        return shlex.join(words)


def load_items(folder: Path = RESULTS) -> list[Item]:
    """Raises ValueError for an item that names neither tests nor a command, or both."""
    table = tomllib.loads((folder / "items.toml").read_text(encoding="utf-8"))
    lists = ("covers", "tests", "command")
    items = [
        Item(
            entry["id"],
            entry["what"],
            **{key: tuple(entry.get(key, ())) for key in lists},
            pending=entry.get("pending", ""),
        )
        for entry in table["item"]
    ]
    for item in items:
        if bool(item.tests) == bool(item.command):
            raise ValueError(f"item {item.id}: give either tests or a command.")
    return items


def load_planned(folder: Path = RESULTS) -> dict[str, str]:
    """Proofs that wait for a part that is not built: id -> what each is to show."""
    table = tomllib.loads((folder / "items.toml").read_text(encoding="utf-8"))
    return {entry["id"]: entry["what"] for entry in table.get("planned", ())}


def covered_files(watched: tuple[str, ...], root: Path = ROOT) -> list[Path]:
    found = {path for pattern in watched for path in root.glob(pattern) if path.is_file()}
    return sorted(path for path in found if "__pycache__" not in path.parts and path.suffix != ".so")


def code_hash(item: Item, root: Path = ROOT) -> str:
    """sha256 over the names and contents of all files that the item watches."""
    digest = hashlib.sha256()
    for path in covered_files(item.watched(), root):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def read_result(item: Item, folder: Path = RESULTS) -> dict[str, Any] | None:
    path = folder / f"{item.id}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def is_current(item: Item, result: dict[str, Any] | None, root: Path = ROOT) -> bool:
    return result is not None and result["passed"] and result["code_hash"] == code_hash(item, root)


def run_item(item: Item) -> dict[str, Any]:
    from headrace.cli.machine import measured_on

    before, began = code_hash(item), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        figures_file = Path(folder) / "figures.json"
        done = subprocess.run(item.shell_line(figures_file), cwd=ROOT, stdin=subprocess.DEVNULL)
        figures = json.loads(figures_file.read_text(encoding="utf-8")) if figures_file.is_file() else {}
    return {
        "id": item.id,
        "what": item.what,
        "command": item.shown_command(),
        "passed": done.returncode == 0,
        "figures": figures,
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": measured_on(),
        "seconds": round(time.monotonic() - began, 1),
        "covers": list(item.covers),
        "code_hash": before,
    }


def commit() -> str:
    """The commit, with `+` where files were changed since."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the acceptance items that are not proven for this code.")
    parser.add_argument("ids", nargs="*", metavar="ID")
    parser.add_argument("--list", action="store_true", help="only show each item's state")
    parser.add_argument("--force", action="store_true", help="run items that are current as well")
    arguments = parser.parse_args()
    items = load_items()
    if unknown := set(arguments.ids) - {item.id for item in items}:
        parser.error(f"no such item: {', '.join(sorted(unknown))}")
    wanted = [item for item in items if not arguments.ids or item.id in arguments.ids]
    failed = [item.id for item in wanted if not settle(item, arguments.list, arguments.force)]
    if arguments.list and not arguments.ids:
        for name, what in load_planned().items():
            print(f"{name}: planned – {what}")
    print(f"{len(wanted) - len(failed)} passed, {len(failed)} failed" + (f": {' '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def settle(item: Item, only_list: bool, force: bool) -> bool:
    result = read_result(item)
    if only_list or (is_current(item, result) and not force):
        state = "current" if is_current(item, result) else "to run"
        print(f"{item.id}: {state} – {item.what}")
        return is_current(item, result)
    print(f"{item.id}: {item.what}\n  {item.shown_command()}", flush=True)
    result = run_item(item)
    (RESULTS / f"{item.id}.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{item.id}: {'passed' if result['passed'] else 'FAILED'} in {result['seconds']} s", flush=True)
    return bool(result["passed"])


if __name__ == "__main__":
    sys.exit(main())
