"""The Makefile's own steps, with a stand-in for the interpreter."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A make that runs these tests must not speak to the one under test.
ALONE = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PIP_ARGS"))}


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    for file in ("Makefile", "pyproject.toml", "constraints.txt"):
        (folder / file).write_bytes((ROOT / file).read_bytes())
    return subprocess.run(["make", *words], cwd=folder, capture_output=True, text=True, env=ALONE)


def test_an_environment_that_cannot_be_made_is_not_left_half_made(tmp_path: Path) -> None:
    """As `python -m venv` does where ensurepip is missing: the interpreter stands, pip does not."""
    broken = tmp_path / "python"
    program(broken, 'case "$2" in venv) mkdir -p "$3/bin"; touch "$3/bin/python"; exit 1;; esac')
    for _ in range(2):
        done = make(tmp_path, "run", f"PYTHON={broken}")
        assert done.returncode != 0 and "python3-venv" in done.stderr, done.stderr
        assert not (tmp_path / ".venv").exists()


def test_further_arguments_reach_pip(tmp_path: Path) -> None:
    environment = tmp_path / ".venv" / "bin"
    program(environment / "python", 'echo "python $@"')
    program(environment / "headrace", "echo headrace")
    done = make(tmp_path, "run", "PIP_ARGS=--extra-index-url file:///wheels --pre")
    install = next(line for line in done.stdout.splitlines() if line.startswith("python -m pip install"))
    assert "--extra-index-url file:///wheels --pre" in install and install.endswith("--editable .[torch]")
    assert done.stdout.splitlines()[-1] == "headrace"
