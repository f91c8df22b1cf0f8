"""docs/forks.md says what its result file says."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def kv_sharing_page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kv_sharing_page", ROOT / "benchmarks" / "kv_sharing_page.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_fresh(kv_sharing_page: ModuleType) -> None:
    result = json.loads(kv_sharing_page.RESULT.read_text(encoding="utf-8"))
    assert kv_sharing_page.PAGE.read_text(encoding="utf-8") == kv_sharing_page.page(result)


def test_forking_computes_less_at_every_width(kv_sharing_page: ModuleType) -> None:
    result = json.loads(kv_sharing_page.RESULT.read_text(encoding="utf-8"))
    assert [row["beams"] for row in result["rows"]] == [4, 16, 64]
    for row in result["rows"]:
        assert row["cache_off"]["prefill"]["low"] > row["cache_on"]["prefill"]["high"] > 1
        assert row["cache_off"]["seconds"]["low"] > 1
