"""Sizes that are decided before anything is loaded."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from backends.twins import MODELS, RandomStore
from headrace.backends.select import make_executor, state_page_bytes
from headrace.engine.engine import Engine
from headrace.engine.load import decide_limits
from headrace.spec.errors import PlanRejected
from headrace.spec.ledger import Ledger
from headrace.spec.model import ModelSpec
from headrace.spec.options import EngineOptions
from headrace.spec.sampling import Stop

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


def answers(model: Path, options: EngineOptions) -> bool:
    """Whether the engine starts and gives two tokens; everything stays within the memory that was allowed."""
    with Engine.load(model, options) as engine, engine.open_now("A river") as sequence:
        assert options.memory and engine.ledger.total <= options.memory * 2**20
        return len(sequence.extend(Stop(tokens=2, ignore_eos=True)).result().token_ids) == 2


def advised(refused: PlanRejected) -> list[dict[str, int]]:
    """The options that a refusal names, one plan after the other."""
    found = re.findall(r"(?:lower|raise) --(memory|state-memory) to (\d+)", str(refused))
    return [{name.replace("-", "_"): int(number)} for name, number in found]


@pytest.mark.parametrize("memory", [20, 70, 100])
def test_what_a_refusal_advises_works_the_first_time(
    memory: int, smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first start packs weights beside the plan, the second one does not."""
    pytest.importorskip("headrace.backends.native._kernels", reason="the native kernels were not built")
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path))
    wanted = EngineOptions(memory=memory, threads=1, context=256)
    for cached in (False, True):
        assert any(tmp_path.glob("packed/*.panels")) == cached
        with pytest.raises(PlanRejected) as refused:
            Engine.load(smollm2, wanted)
        plans = advised(refused.value)
        assert plans and ("state_memory" in plans[0]) == (memory >= 70), str(refused.value)
        assert any(tmp_path.glob("packed/*.panels")) == cached, "refused before a weight was read"
        for plan in plans:
            assert answers(smollm2, replace(wanted, **plan))


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("name", ["grouped-query", "experts", "windows"])
def test_what_is_advised_fits_where_weights_are_in_memory(name: str, backend: Any) -> None:
    module = "headrace.backends.native._kernels" if backend == "native" else "torch"
    pytest.importorskip(module, reason=f"the {backend} backend is not installed")
    spec = replace(MODELS[name], context=4096)

    def load(options: EngineOptions) -> int:
        ledger = Ledger((options.memory or 0) * 2**20)
        make_executor(spec, RandomStore(spec), decide_limits(spec, options), ledger, options).close()
        return ledger.total

    wanted = EngineOptions(backend=backend, state_memory=64, threads=1)
    for memory in (40, 30, 1):
        with pytest.raises(PlanRejected) as refused:
            load(replace(wanted, memory=memory))
        for plan in advised(refused.value):
            assert load(replace(wanted, **{"memory": memory} | plan)) == 0
