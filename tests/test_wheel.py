"""The wheel built from this tree works in an empty environment."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*words: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.prove
def test_wheel_installs_and_answers(tmp_path: Path, figures: dict[str, Any], smollm2: Path) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    packed = {name for name in names if name.startswith("headrace/")}
    source = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "headrace").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == source

    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "-qq", "-c", ROOT / "constraints.txt", f"{wheel}[torch]", cwd=tmp_path)
    headrace = tmp_path / "env" / "bin" / "headrace"
    answer = json.loads(
        run(headrace, "run", "What is the capital of France?", "--max-tokens", "16", "--json", cwd=tmp_path)
    )
    assert "Paris" in answer["text"]
    figures |= {"wheel_bytes": wheel.stat().st_size, "files": len(packed), "answer": answer["text"]}
