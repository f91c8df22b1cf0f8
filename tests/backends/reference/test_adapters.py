"""Adapters in torch: right, and without effect on any bit of another row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the reference backend is torch")

from backends.lora import Merged, check_crowd, crowd, random_adapter
from backends.reference.build import executor
from backends.twins import ENCODER, MODELS, RandomStore, distance, draw, limits_of, row, submit
from headrace.backends.reference.adapters import adapter_bytes
from headrace.backends.reference.executor import ReferenceExecutor
from headrace.spec.errors import InvalidRequest, ModelFileError, PlanRejected
from headrace.spec.ledger import Ledger
from headrace.spec.model import ModelSpec

SPEC = MODELS["grouped-query"]


def merged(spec: ModelSpec, *adapter: Any) -> ReferenceExecutor:
    return ReferenceExecutor(spec, Merged(RandomStore(spec), *adapter), limits_of(spec), Ledger())


@pytest.mark.parametrize("name", MODELS)
def test_equals_the_model_with_merged_weights(name: str) -> None:
    spec, tokens = MODELS[name], draw(40)
    adapter = random_adapter(spec, rank=5)
    wanted = submit(merged(spec, adapter, 1.5), row(spec, tokens)).logits
    backend = executor(spec)
    base = submit(backend, row(spec, tokens)).logits
    backend.add_adapter(adapter)
    spans = ((0, 33), (33, 39), (39, 40))
    steps = [row(spec, tokens[at:to], at, adapter="one", adapter_scale=1.5) for at, to in spans]
    found = np.concatenate([submit(backend, step).logits for step in steps])
    assert distance(found, wanted) < 2e-5
    assert distance(base, wanted) > 0.02
    assert np.array_equal(base, submit(backend, row(spec, tokens)).logits)
    assert np.array_equal(base, submit(backend, row(spec, tokens, adapter="one", adapter_scale=0.0)).logits)


def test_an_encoder_has_adapters_too() -> None:
    adapter, tokens, last = random_adapter(ENCODER, rank=5), draw(40), len(ENCODER.layers)
    asked: dict[str, Any] = {"logits_from": None, "reads": (last,)}
    wanted = submit(merged(ENCODER, adapter), row(ENCODER, tokens, **asked)).hidden[0, last]
    backend = executor(ENCODER)
    backend.add_adapter(adapter)
    found = submit(backend, row(ENCODER, tokens, adapter="one", **asked)).hidden[0, last]
    assert distance(found, wanted) < 2e-5


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", MODELS)
def test_rows_of_other_adapters_change_no_bit(name: str, dtype: str) -> None:
    spec = MODELS[name]
    adapters = random_adapter(spec, "one", 1, 19), random_adapter(spec, "two", 2, 4, only=".q.")
    before, after = crowd(spec, (None, "one", "two"))
    alone = {}
    for first, second in zip(before, after, strict=True):
        # A row without an adapter is held against an executor that never had one.
        backend = executor(spec, dtype)
        for adapter in adapters:
            if adapter.name == first.adapter:
                backend.add_adapter(adapter)
        if not backend.guarantees.bit_exact:
            pytest.skip("products here do not give a row the same bits in every slot, as measured")
        submit(backend, first)
        alone[second.sequence] = submit(backend, second)
    backend = executor(spec, dtype)
    for adapter in adapters[::-1]:
        backend.add_adapter(adapter)
    submit(backend, *before)
    grouped = sorted(after, key=lambda member: str(member.adapter))
    for order in (after, after[::-1], after[1::2] + after[::2], grouped):
        check_crowd(submit(backend, *order), order, alone)


def test_bytes_are_charged_and_given_back() -> None:
    ledger, adapter = Ledger(), random_adapter(SPEC, rank=17)
    backend = executor(SPEC, ledger=ledger)
    before = ledger.total
    ledger.limit = before + adapter_bytes(adapter) - 1
    with pytest.raises(PlanRejected, match="remove an adapter"):
        backend.add_adapter(adapter)
    assert ledger.total == before
    ledger.limit = None
    backend.add_adapter(adapter)
    assert ledger.total == before + adapter_bytes(adapter)
    backend.remove_adapter("one")
    assert ledger.total == before
    backend.add_adapter(adapter)
    backend.close()
    assert ledger.total == 0


def test_refusals() -> None:
    backend, adapter = executor(SPEC), random_adapter(SPEC)
    with pytest.raises(InvalidRequest, match="has the adapter one, which is not loaded"):
        submit(backend, row(SPEC, draw(5), adapter="one"))
    backend.add_adapter(adapter)
    with pytest.raises(InvalidRequest, match="loaded already"):
        backend.add_adapter(adapter)
    with pytest.raises(ModelFileError, match="use the model that it was trained for"):
        backend.add_adapter(replace(random_adapter(replace(SPEC, hidden=16)), name="narrow"))
