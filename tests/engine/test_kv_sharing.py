"""P14's counters: what a step beam computes again, by forks and by sending every prefix anew, is the formula's."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest

from engine.canary import VOCAB, CanaryExecutor
from headrace.engine.engine import Engine
from headrace.spec.options import EngineOptions
from reason.toy import LetterTokenizer

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def kv_sharing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kv_sharing", BENCHMARKS / "kv_sharing.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


@pytest.mark.parametrize("way", ["forks", "cache_off", "cache_on"])
def test_prefill_is_as_the_formula_says(kv_sharing: ModuleType, way: str) -> None:
    with canary(prefix_cache=way != "cache_off") as engine:
        walked(kv_sharing, engine, way, 4, VOCAB)


def test_a_wrong_count_is_seen(kv_sharing: ModuleType) -> None:
    with canary(prefix_cache=True) as engine, pytest.raises(SystemExit, match="not"):
        walked(kv_sharing, engine, "cache_off", 4, VOCAB)


@pytest.mark.prove
@pytest.mark.parametrize("beams", [4, 16, 64])
def test_prefill_is_as_the_formula_says_full(
    kv_sharing: ModuleType, smollm2: Path, beams: int, figures: dict[str, Any]
) -> None:
    for prefix_cache in (True, False) if beams < 64 else (True,):
        options = EngineOptions(state_memory=1500, context=1024, prefix_cache=prefix_cache)
        with Engine.load(smollm2, options) as engine:
            for way in ("forks", "cache_on") if prefix_cache else ("cache_off",):
                figures[way] = walked(kv_sharing, engine, way, beams, engine.spec.vocab)


def canary(prefix_cache: bool) -> Engine:
    options = EngineOptions(prefix_cache=prefix_cache)
    return Engine(CanaryExecutor(400, context=1024), LetterTokenizer(), options)  # type: ignore[arg-type]


def walked(kv_sharing: ModuleType, engine: Engine, way: str, beams: int, vocab: int) -> dict[str, float]:
    """The beam's figures; the benchmark itself stops where the count is another than the formula's."""
    prompt = [Random(7).randrange(1, vocab) for _ in range(kv_sharing.PROMPT)]
    found: dict[str, float] = kv_sharing.measured(engine, way, prompt, beams)
    assert found["prefill"] == kv_sharing.FORMULAS[way](beams)
    del found["seconds"]
    return found
