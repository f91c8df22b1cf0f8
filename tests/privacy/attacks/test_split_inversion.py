"""The split's benchmark at tiny counts: every measurement runs, none twice; its page says what the results say."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("torch", reason="the split runs on the reference backend")
pytest.importorskip("scipy.sparse", reason="needs the extra headrace[privacy]")
pytest.importorskip("headrace.backends.native._kernels", reason="the native kernels were not built")

from headrace.model.loading import load_model
from headrace.privacy.attacks.corpora import Work
from headrace.privacy.report import stored_lines
from headrace.privacy.split.utility import Utility
from headrace.spec.ledger import Ledger
from server.twin import write_twin

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType, ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    found = [importlib.import_module(name) for name in ("split_inversion", "split_subject", "split_page")]
    monkeypatch.setattr(found[1], "topics", letters)
    return found[0], found[1], found[2]


def letters() -> tuple[Work, ...]:
    rng = np.random.default_rng(3)
    return tuple(Work(str(n), tuple("".join(map(chr, rng.integers(97, 123, 70))) for _ in range(3))) for n in range(4))


def test_every_cell_runs_and_none_twice(bench: tuple[ModuleType, ModuleType, ModuleType], tmp_path: Path) -> None:
    measure, parts, pages = bench
    source = write_twin(tmp_path)
    loaded = load_model(source, Ledger())
    encode = lambda text: list(text.encode())  # noqa: E731
    subject = parts.Subject("twin", source, loaded.spec, loaded.weights, encode, threads=1)
    sizes = measure.Sizes((1,), (0.0, 1.0), answers=1, tokens=4, texts=1, positions=12, prompts=2, length=6, fit=100)
    path, kinds = tmp_path / "cells.jsonl", list(measure.KINDS)
    assert measure.run(subject, sizes, kinds, path, seconds=-1) == []
    rows = measure.run(subject, sizes, kinds, path, seconds=1e9)
    assert len(rows) == len(list(sizes.cells(kinds))) == 7
    lines = path.read_text(encoding="utf-8").splitlines()
    assert measure.run(subject, sizes, kinds, path, seconds=1e9) == rows
    assert path.read_text(encoding="utf-8").splitlines() == lines

    found = pages.Results(measure.results(subject, sizes, json.loads(json.dumps(rows))))
    exact = found.of("exact", k=1)
    assert exact["same"] == exact["tokens"] == 4 and exact["logits_apart"] == 0.0 and exact["bytes_a_token"] == 256
    clear, noisy = (found.of("utility", k=1, noise=noise) for noise in (0.0, 1.0))
    assert clear["divergence"] == clear["logits_apart"] == 0.0 < noisy["divergence"]
    assert found.of("inversion", k=1, noise=0.0, prior=False)["mass"]["value"] == 1.0
    assert found.of("null", k=1)["mass"]["value"] < 0.5
    assert pages.OPEN not in pages.page(found.found)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "split.json").write_text(json.dumps(found.found), encoding="utf-8")
    clear, noisy, mpc = stored_lines(tmp_path / "results")
    assert (clear.profile, noisy.profile, mpc.profile) == ("split:1", "split:1,noise=1", "mpc")
    assert clear.recovery is not None and clear.recovery.value == 1.0 and clear.slowdown == exact["slowdown"]


def test_what_noise_costs_has_an_interval_of_prompts(
    bench: tuple[ModuleType, ModuleType, ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two prompts whose tokens all stay and two whose tokens all change are no more than four trials."""
    parts, source = bench[1], write_twin(tmp_path)
    loaded = load_model(source, Ledger())
    subject = parts.Subject("twin", source, loaded.spec, loaded.weights, lambda text: list(text.encode()), threads=1)
    kept = iter([True, False] * 2)

    def whole(plain: np.ndarray, split: np.ndarray) -> Utility:
        return Utility(np.full(len(plain), next(kept)), 0.5, 1.0)

    monkeypatch.setattr(Utility, "of", whole)
    found = parts.utility(subject, k=1, noise=0.0, prompts=4, length=12)
    share = found["agreement"]
    assert (found["positions"], share["value"]) == (48, 0.5) and share["high"] - share["low"] > 0.5


def test_a_row_behind_a_line_that_was_cut_off_is_kept(
    bench: tuple[ModuleType, ModuleType, ModuleType], tmp_path: Path
) -> None:
    path, rows = tmp_path / "new" / "cells.jsonl", importlib.import_module("kept_rows")
    rows.keep(path, {"key": "a", "found": 1})
    with path.open("a", encoding="utf-8") as file:
        file.write('{"key": "b", "fou')
    rows.keep(path, {"key": "c", "found": 3})
    assert rows.kept(path) == {"a": {"key": "a", "found": 1}, "c": {"key": "c", "found": 3}}
    assert len(path.read_text(encoding="utf-8").splitlines()) == 3


def test_the_page_is_fresh_and_every_figure_is_of_the_results(
    bench: tuple[ModuleType, ModuleType, ModuleType],
) -> None:
    pages = bench[2]
    found = json.loads(pages.RESULTS.read_text(encoding="utf-8"))
    assert pages.PAGE.read_text(encoding="utf-8") == pages.page(found), "run `python benchmarks/split_page.py`"
    emptied = pages.page(found | {"rows": [], "done": 0})
    assert not re.search(r"\d%", emptied) and emptied.count(pages.OPEN) >= 3
