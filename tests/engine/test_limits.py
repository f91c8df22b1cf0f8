"""Sizes that are decided before anything is loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args, get_type_hints

import pytest

from backends.twins import MODELS, RandomStore
from headrace.backends.select import make_executor, state_page_bytes
from headrace.engine.load import decide_limits
from headrace.spec.ledger import Ledger
from headrace.spec.model import ModelSpec
from headrace.spec.options import EngineOptions

STATE_TYPES = get_args(get_type_hints(EngineOptions)["state_type"])


def reserved(spec: ModelSpec, options: EngineOptions) -> int:
    """Bytes of keys and values in the ledger."""
    ledger = Ledger()
    executor = make_executor(spec, RandomStore(spec), decide_limits(spec, options), ledger, options)
    found = ledger.by_tag()["state"]
    executor.close()
    return found


@pytest.mark.parametrize("state_type", STATE_TYPES)
@pytest.mark.parametrize("name", ["grouped-query", "windows"])
def test_the_pages_fill_the_memory_that_was_given(name: str, state_type: Any) -> None:
    pytest.importorskip("headrace.backends.native._kernels", reason="the native kernels were not built")
    spec, options = MODELS[name], EngineOptions(backend="native", state_type=state_type, state_memory=3, threads=1)
    spec = replace(spec, context=4096)
    assert 3 * 2**20 - state_page_bytes(spec, options) < reserved(spec, options) <= 3 * 2**20
