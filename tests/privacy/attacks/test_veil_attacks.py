"""The benchmark's own code at tiny counts: every attack runs, and a second call goes on where the first stopped."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from privacy.attacks.folder import write_model
from privacy.attacks.keyed import embedding

pytest.importorskip("scipy.optimize", reason="needs the extra headrace[privacy]")

from headrace.privacy.attacks.corpora import Corpus, Work
from headrace.privacy.attacks.recovery import Recovery

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
VOCAB, DIM = 256, 16


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[ModuleType, ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path))
    attacks, subject = (importlib.import_module(name) for name in ("veil_attacks", "veil_subject"))
    monkeypatch.setattr(subject, "works", small_works)
    return attacks, subject


def small_works(corpus: Corpus) -> tuple[Work, ...]:
    """Words drawn from one small dictionary; Shakespeare draws from another."""
    words = [f"{chr(97 + n % 26) * (1 + n % 3)}{n % 7}" for n in range(60)]
    rng = np.random.default_rng([len(corpus), 1])
    shift = 30 if corpus == "shakespeare" else 0
    texts = [" ".join(words[(shift + n * n // 40) % 60] for n in rng.integers(60, size=900)) for _ in range(6)]
    return tuple(Work(str(number), (text,)) for number, text in enumerate(texts))


def encode(text: str) -> Sequence[int]:
    return list(text.encode())


def test_every_cell_runs_and_none_twice(bench: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    attacks, subject_module = bench
    pytest.importorskip("headrace.backends.native._kernels", reason="the native kernels were not built")
    model = write_model(tmp_path / "model", vocab=VOCAB)
    subject = subject_module.Subject("tiny", embedding(VOCAB, DIM), np.linspace(0.5, 2, DIM), encode, model)
    sizes = attacks.Sizes(
        noises=(0.0,), tokens=(2_000,), told=(40,), runs=1, written=(400,), read=attacks.TOLD_FIRST + 2, cached=32
    )
    path, names = tmp_path / "cells.jsonl", list(attacks.ATTACKS)
    assert attacks.run(subject, sizes, names, path, seconds=-1) == []
    rows = attacks.run(subject, sizes, names, path, seconds=1e9)
    kinds = {"align", "bigram", "rank-frequency", "known-pairs", "known-pairs-weights"}
    kinds |= {"align-artefact", "oracle", "kv", "hidden"}
    assert {row["attack"] for row in rows} == kinds and len(rows) == len(list(sizes.cells(names)))
    for row in rows:
        recovery = Recovery.from_json(row["recovery"])
        assert recovery.cost.seconds > 0 and recovery.cost.bytes > 0
        served = row["setting"].get("tokens", row["setting"].get("positions", 0))
        assert recovery.cost.tokens == served
    align = next(row for row in rows if row["attack"] == "align")
    assert align["recovery"]["types"]["value"] > 0.95
    whole = next(row for row in rows if row["attack"] == "align-artefact")
    assert whole["recovery"]["types"]["value"] > 0.95

    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:20] + "\n", encoding="utf-8")
    again = attacks.run(subject, sizes, names, path, seconds=1e9)
    assert len(path.read_text(encoding="utf-8").splitlines()) == len(lines) + 1, "only the cut cell was run again"
    assert [row["attack"] for row in again] == [row["attack"] for row in rows]


def test_the_same_cell_gives_the_same_figures(bench: tuple[ModuleType, ModuleType]) -> None:
    _, subject_module = bench
    subject = subject_module.Subject("tiny", embedding(VOCAB, DIM), np.ones(DIM), encode)
    setting = {"domain": "in-domain", "tokens": 1_000}
    one, two = (subject_module.run_cell(subject, "bigram", setting, 1) for _ in range(2))
    assert (one.types, one.mass, one.details) == (two.types, two.mass, two.details)
    assert subject_module.run_cell(subject, "bigram", setting, 2).details != one.details
    sys.modules.pop("veil_subject")
