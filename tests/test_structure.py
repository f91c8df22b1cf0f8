"""The house stands: no torch outside its rooms, short files, short functions, nothing left half done."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "headrace"
FOLDERS = (ROOT / "src", ROOT / "tests", ROOT / "benchmarks")
MAX_FILE_LINES, MAX_FUNCTION_LINES, USUAL_FUNCTION_LINES = 500, 80, 25
OTHER_ENVIRONMENTS = ("headrace.privacy.mpc.worker.",)
"""Rooms that run in an environment of their own and are never imported here."""

TORCH_ROOMS = ("headrace.backends.reference", "headrace.backends.cuda", "headrace.mesh", "headrace.adapt")
UNFINISHED = ("TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK", "place" + "holder", "for " + "now")

IMPORT_ALL = """
import importlib, sys
culprits = []
for name in sys.argv[1:]:
    importlib.import_module(name)
    if "torch" in sys.modules:
        culprits.append(name)
        break
print(" ".join(culprits))
"""


def python_files(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def run_import(code: str, *args: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_no_module_outside_the_torch_rooms_loads_torch() -> None:
    names = [name for name in map(module_name, python_files(SOURCE)) if not name.startswith(TORCH_ROOMS)]
    names = [name for name in names if not name.endswith("__main__") and not name.startswith(OTHER_ENVIRONMENTS)]
    assert {"headrace.cli.run", "headrace.engine.engine", "headrace.backends.native.executor"} <= set(names)
    assert run_import(IMPORT_ALL, *names) == "", "the first module after whose import torch was loaded"


def test_nothing_here_imports_what_runs_elsewhere() -> None:
    rooms = [name.removesuffix(".") for name in OTHER_ENVIRONMENTS]
    for path in python_files(SOURCE):
        if not module_name(path).startswith(tuple(rooms)):
            text = path.read_text(encoding="utf-8")
            assert not [room for room in rooms if f"import {room}" in text or f"from {room}" in text], path


def test_the_torch_check_sees_torch() -> None:
    """The check above can fail: a module that does import torch is named."""
    pytest.importorskip("torch")
    assert run_import(IMPORT_ALL, "headrace.spec", "torch") == "torch"


def test_command_line_help_loads_neither_numpy_nor_torch() -> None:
    code = "import sys, headrace.cli.main; print([n for n in ('numpy', 'torch', 'starlette') if n in sys.modules])"
    assert run_import(code) == "[]"


def test_files_are_short() -> None:
    paths = [*python_files(*FOLDERS), *SOURCE.glob("backends/native/cpp/*")]
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    too_long = {path: lines for path, lines in lengths.items() if lines >= MAX_FILE_LINES}
    assert not too_long


def function_lengths() -> dict[str, int]:
    lengths = {}
    for path in python_files(SOURCE):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
                lengths[name] = (node.end_lineno or node.lineno) - node.lineno + 1
    return lengths


def test_functions_are_short() -> None:
    lengths = function_lengths()
    assert not {name: lines for name, lines in lengths.items() if lines >= MAX_FUNCTION_LINES}
    usual = sum(lines < USUAL_FUNCTION_LINES + 1 for lines in lengths.values())
    assert usual >= 0.9 * len(lengths), "nine functions in ten have at most 25 lines"


def test_nothing_is_left_half_done() -> None:
    found = []
    for path in python_files(*FOLDERS):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found += [f"{path.relative_to(ROOT)}:{number}: {word}" for word in UNFINISHED if word in line]
    assert not found


def test_tests_mirror_the_source() -> None:
    rooms = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    tested = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    assert tested - {"__pycache__"} <= rooms
