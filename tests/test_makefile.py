"""The Makefile's own steps, with a stand-in for the interpreter."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A make that runs these tests must not speak to the one under test.
ALONE = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PIP_ARGS"))}


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


CPP = Path("src/headrace/backends/native/cpp")


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    for file in ("Makefile", "pyproject.toml", "constraints.txt", "CMakeLists.txt"):
        if not (folder / file).exists():
            shutil.copy2(ROOT / file, folder / file)
    return subprocess.run(["make", *words], cwd=folder, capture_output=True, text=True, env=ALONE)


def test_an_environment_that_cannot_be_made_is_not_left_half_made(tmp_path: Path) -> None:
    """As `python -m venv` does where ensurepip is missing: the interpreter stands, pip does not."""
    broken = tmp_path / "python"
    program(broken, 'case "$2" in venv) mkdir -p "$3/bin"; touch "$3/bin/python"; exit 1;; esac')
    for _ in range(2):
        done = make(tmp_path, "run", f"PYTHON={broken}")
        assert done.returncode != 0 and "python3-venv" in done.stderr, done.stderr
        assert not (tmp_path / ".venv").exists()


def stand_in(folder: Path, python: str = 'echo "python $@ ($PIP_CONSTRAINT)"') -> None:
    environment = folder / ".venv" / "bin"
    program(environment / "python", python)
    program(environment / "headrace", "echo headrace")


def installs(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("python -m pip install")]


def test_further_arguments_reach_pip(tmp_path: Path) -> None:
    stand_in(tmp_path)
    done = make(tmp_path, "run", "PIP_ARGS=--extra-index-url file:///wheels --pre")
    (install,) = installs(done)
    assert "--extra-index-url file:///wheels --pre" in install
    assert install.endswith("--editable . (constraints.txt)"), "run installs without torch, in pinned versions"
    assert done.stdout.splitlines()[-1] == "headrace"


def test_test_brings_torch_and_the_tools_and_builds_nothing_again(tmp_path: Path) -> None:
    stand_in(tmp_path, 'if [ "$1" = -c ]; then exec python3 "$@"; fi; echo "python $@ ($PIP_CONSTRAINT)"')
    (tmp_path / ".venv" / ".stamp-run").touch()
    (install,) = installs(make(tmp_path, ".venv/.stamp-test"))
    assert install.endswith("--requirement .venv/extras.txt (constraints.txt)")
    wanted = (tmp_path / ".venv" / "extras.txt").read_text(encoding="utf-8").splitlines()
    assert {"torch", "pytest", "ruff"} <= {re.split("[><=]", line)[0] for line in wanted}
    assert installs(make(tmp_path, "run")) == [], "run and test share one installation"


def test_without_an_installation_test_makes_it(tmp_path: Path) -> None:
    stand_in(tmp_path)
    editable, extras = installs(make(tmp_path, ".venv/.stamp-test"))
    assert "--editable ." in editable and "--requirement" in extras


def test_bench_leaves_the_published_figures_alone(tmp_path: Path) -> None:
    stand_in(tmp_path)
    program(tmp_path / ".venv" / "bin" / "headrace", 'echo "headrace $@"')
    assert "headrace bench --output build/offline.json" in make(tmp_path, "bench").stdout.splitlines()
    asked = make(tmp_path, "bench", "OUTPUT=results/mine.json", "ARGS=--repeats 1")
    assert "headrace bench --output results/mine.json --repeats 1" in asked.stdout.splitlines()
    assert (tmp_path / "build").is_dir() and (tmp_path / "results").is_dir()


def test_kernels_are_built_anew_when_their_sources_change(tmp_path: Path) -> None:
    stand_in(tmp_path)
    (tmp_path / CPP).mkdir(parents=True)
    header = tmp_path / CPP / "kernels.h"
    header.touch()
    for source in (None, header, tmp_path / "CMakeLists.txt"):
        if source is not None:
            later = (tmp_path / ".venv" / ".stamp-run").stat().st_mtime + 2
            os.utime(source, (later, later))
        assert len(installs(make(tmp_path, "run"))) == 1
        os.utime(tmp_path / ".venv" / ".stamp-run", (later, later)) if source else None
        assert installs(make(tmp_path, "run")) == []
    assert list((ROOT / CPP).glob("*.h")), "the sources stand where the Makefile looks for them"


def test_without_kernels_nothing_counts_as_installed(tmp_path: Path) -> None:
    stand_in(tmp_path, 'case "$2" in *_kernels*) exit 1;; esac; echo "python $@"')
    for _ in range(2):
        done = make(tmp_path, "run")
        assert done.returncode != 0 and "install a C++20 compiler" in done.stderr and "run make again" in done.stderr
        assert "python -m pip install" in done.stdout
