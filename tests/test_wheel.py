"""The wheel built from this tree works in an empty environment, and says what to do where it has no kernels."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
QUESTION = ("run", "What is the capital of France?", "--max-tokens", "16")
NO_KERNELS = """
import sys
sys.modules["headrace.backends.native._kernels"] = sys.modules["torch"] = None
from headrace.cli.main import app
app()
"""


def run(*words: str | Path, cwd: Path) -> str:
    pinned = dict.fromkeys(("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT"), "constraints.txt") if cwd == ROOT else {}
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, capture_output=True, text=True, env=os.environ | pinned
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_without_kernels_and_torch_run_says_what_to_do(smollm2: Path) -> None:
    done = subprocess.run([sys.executable, "-c", NO_KERNELS, *QUESTION], capture_output=True, text=True)
    assert done.returncode == 2 and not done.stdout
    sentence = " ".join(done.stderr.split())
    assert "kernels were not built" in sentence and "install both (g++, python3-dev) and reinstall" in sentence
    assert "Traceback" not in sentence and sentence.count(". ") == 0


def packed_files() -> set[str]:
    """What git has of the package, without the kernels' sources."""
    listed = run("git", "ls-files", "src/headrace", cwd=ROOT).splitlines()
    return {name.removeprefix("src/") for name in listed if "/cpp/" not in name}


def installed_bytes(environment: Path) -> int:
    """All that the wheel and what it depends on brought, without pip's own."""
    (packages,) = environment.glob("lib/python*/site-packages")
    own = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence")
    files = (path for path in packages.rglob("*") if not path.relative_to(packages).parts[0].startswith(own))
    return sum(path.stat().st_size for path in files if path.is_file())


def start(headrace: Path, folder: Path) -> tuple[float, float]:
    """Seconds from the process's start to its first token, and the processor's seconds of the whole process."""
    begin = time.perf_counter()
    words = [headrace, *QUESTION[:-1], "1"]
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None and process.stdout.read(1)
        first = time.perf_counter() - begin
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return first, used.ru_utime + used.ru_stime


@pytest.mark.prove
def test_wheel_installs_and_answers(tmp_path: Path, figures: dict[str, Any], smollm2: Path) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT, cwd=ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("headrace/")}
    built = {name for name in packed if name.endswith(".so")}
    assert [Path(name).name.split(".")[0] for name in built] == ["_kernels"]
    assert packed - built == packed_files()

    environment = tmp_path / "env"
    venv.create(environment, with_pip=True)
    run(environment / "bin" / "python", "-m", "pip", "install", "-qq", wheel, cwd=ROOT)
    listed = run(environment / "bin" / "python", "-m", "pip", "list", "--format=json", cwd=tmp_path)
    assert "torch" not in {package["name"] for package in json.loads(listed)}
    size = installed_bytes(environment)

    headrace = environment / "bin" / "headrace"
    answer = json.loads(run(headrace, *QUESTION, "--json", cwd=tmp_path))
    assert "Paris" in answer["text"]
    assert answer["guarantees"]["backend"] == "native" and answer["guarantees"]["bit_exact"]

    load = os.getloadavg()[0]
    first, processor = zip(*(start(headrace, tmp_path) for _ in range(5)), strict=True)
    figures |= {
        "wheel_bytes": wheel.stat().st_size,
        "installed_bytes": size,
        "files": len(packed),
        "answer": answer["text"],
        "second_start": {
            "first_token_seconds": [round(seconds, 3) for seconds in first],
            "median_first_token_seconds": round(statistics.median(first), 3),
            "median_processor_seconds": round(statistics.median(processor), 3),
            "load_average": round(load, 2),
        },
    }
