"""The benchmark of secret shares on a twin of a model: every cell runs, none twice; the report takes its lines."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the twin is written with it")
pytest.importorskip("transformers", reason="the twin is written with it")
pytest.importorskip("headrace.backends.native._kernels", reason="the native kernels were not built")

from headrace.privacy.mpc.environment import worker_python
from headrace.privacy.report import stored_lines
from server.twin import write_twin

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.mark.skipif(worker_python() is None, reason="the environment of SPU is not here")
def test_every_cell_runs_and_none_twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    bench = importlib.import_module("mpc_cost")
    subject, sizes = bench.Subject(write_twin(tmp_path)), bench.Sizes(4, ("semi2k",), rounds=1)
    path, folder = tmp_path / "cells.jsonl", tmp_path / "results"
    assert bench.run(subject, sizes, bench.KINDS, path, seconds=-1) == []
    first = bench.run(subject, sizes, ["pass"], path, seconds=1e9)
    assert [row["kind"] for row in first] == ["pass"] and bench.report_lines(first)[0]["slowdown"] is None
    rows = bench.run(subject, sizes, bench.KINDS, path, seconds=1e9)
    assert [row["kind"] for row in rows] == ["plain", "pass"] and rows[1] == first[0]
    lines = path.read_text(encoding="utf-8")
    assert bench.run(subject, sizes, bench.KINDS, path, seconds=1e9) == rows
    assert path.read_text(encoding="utf-8") == lines

    found = rows[1]["found"]
    assert found["bytes"] == found["formula"]["bytes"] and found["messages"] == found["formula"]["messages"]
    assert found["logit_error"] < 1e-2 and found["same_token"]
    folder.mkdir()
    (folder / "mpc_cost.json").write_text(json.dumps(bench.results(subject, sizes, rows)), encoding="utf-8")
    (line,) = (line for line in stored_lines(folder) if line.kind == "mpc")
    assert line.profile == "mpc:semi2k" and line.slowdown is not None and line.slowdown > 1
