"""Adapters in the C++ kernels: right, and without effect on any bit of another row."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backends.lora import Merged, check_crowd, crowd, random_adapter
from backends.native.build import BLOCKS, EXACT, SUPER_BLOCKS, BlockStore, executor, widened
from backends.twins import ENCODER, MODELS, RandomStore, decoder, distance, draw, limits_of, row, submit
from headrace.backends.native.adapters import panel_bytes
from headrace.backends.native.executor import NativeExecutor, Numerics, instruction_sets
from headrace.spec.adapter import Adapter, LowRank
from headrace.spec.errors import InvalidRequest, ModelFileError, PlanRejected
from headrace.spec.executor import WeightStore
from headrace.spec.ledger import Ledger
from headrace.spec.model import ModelSpec, Rope

LARGE = decoder(
    {"heads": 16, "kv_heads": 4, "head_dim": 48, "scale": 48**-0.5, "rope": Rope(48)}, {"width": 768}, hidden=256
)
CASES = list(itertools.product([*MODELS, "large"], ("floats", "int16", "int8")))
SPEC = MODELS["grouped-query"]


def model(name: str, storage: str) -> tuple[ModelSpec, WeightStore, Numerics]:
    """With blocks, activations reach most products as codes that the operation before has left."""
    spec = LARGE if name == "large" else MODELS[name]
    numerics = Numerics("int8" if storage == "int8" else "int16", "fp16")
    if storage == "floats":
        return spec, RandomStore(spec), numerics
    spec = spec if name == "large" else widened(spec)
    return spec, BlockStore(spec, (*SUPER_BLOCKS, "Q4_1") if name == "large" else BLOCKS), numerics


def load(name: str, storage: str, *adapters: Adapter, **options: Any) -> NativeExecutor:
    spec, store, numerics = model(name, storage)
    backend = executor(spec, store, numerics=numerics, **options)
    for adapter in adapters:
        backend.add_adapter(adapter)
    return backend


def pair(spec: ModelSpec) -> tuple[Adapter, Adapter]:
    """Of different ranks, one beyond a panel; the second changes only queries."""
    return random_adapter(spec, "one", 1, 19), random_adapter(spec, "two", 2, 4, only=".q.")


@pytest.mark.parametrize("name", MODELS)
def test_equals_the_model_with_merged_weights(name: str) -> None:
    spec, tokens = MODELS[name], draw(40)
    adapter = random_adapter(spec, rank=5)
    wanted = submit(executor(spec, Merged(RandomStore(spec), adapter, 1.5)), row(spec, tokens)).logits
    backend = executor(spec)
    backend.add_adapter(adapter)
    spans = ((0, 33), (33, 39), (39, 40))
    steps = [row(spec, tokens[at:to], at, adapter="one", adapter_scale=1.5) for at, to in spans]
    found = np.concatenate([submit(backend, step).logits for step in steps])
    assert distance(found, wanted) < 2e-5
    assert distance(submit(backend, row(spec, tokens)).logits, wanted) > 0.02


@pytest.mark.parametrize("name", [*MODELS, "large"])
def test_blocks_equal_the_model_with_merged_decoded_weights(name: str) -> None:
    spec, store, _ = model(name, "int16")
    adapter, tokens = random_adapter(spec, rank=5), draw(40, vocab=spec.vocab)
    wanted = submit(executor(spec, Merged(store, adapter)), row(spec, tokens)).logits
    backend = executor(spec, store, numerics=EXACT)
    backend.add_adapter(adapter)
    assert distance(submit(backend, row(spec, tokens, adapter="one")).logits, wanted) < 5e-4
    assert distance(submit(backend, row(spec, tokens)).logits, wanted) > 0.02


def test_an_encoder_has_adapters_too() -> None:
    adapter, tokens, last = random_adapter(ENCODER, rank=5), draw(40), len(ENCODER.layers)
    asked: dict[str, Any] = {"logits_from": None, "reads": (last,)}
    merged = executor(ENCODER, Merged(RandomStore(ENCODER), adapter))
    wanted = submit(merged, row(ENCODER, tokens, **asked)).hidden[0, last]
    backend = executor(ENCODER)
    backend.add_adapter(adapter)
    found = submit(backend, row(ENCODER, tokens, adapter="one", **asked)).hidden[0, last]
    assert distance(found, wanted) < 2e-5


@pytest.mark.parametrize(("name", "storage"), CASES)
def test_rows_of_other_adapters_change_no_bit(name: str, storage: str) -> None:
    """Each row of a mixed crowd, on any threads and instruction set, as it is alone on one thread."""
    spec = model(name, storage)[0]
    one, two = pair(spec)
    before, after = crowd(spec, (None, "one", "two"))
    alone = {}
    for first, second in zip(before, after, strict=True):
        # A row without an adapter is held against an executor that never had one.
        only = [adapter for adapter in (one, two) if adapter.name == first.adapter]
        backend = load(name, storage, *only)
        submit(backend, first)
        alone[second.sequence] = submit(backend, second)
    for threads, isa in ((1, None), (2, None), (3, None), *((1, isa) for isa in instruction_sets()[1:])):
        backend = load(name, storage, two, one, threads=threads, isa=isa)
        submit(backend, *before)
        grouped = sorted(after, key=lambda member: str(member.adapter))
        for order in (after, after[::-1], after[1::2] + after[::2], grouped):
            check_crowd(submit(backend, *order), order, alone)


@pytest.mark.parametrize(("name", "storage"), CASES)
def test_chunks_change_no_bit(name: str, storage: str) -> None:
    spec = model(name, storage)[0]
    tokens = draw(75, vocab=spec.vocab)
    backend = load(name, storage, random_adapter(spec, rank=19))
    found = {}
    for size in (75, 1, 3, 7, 16):
        steps = [row(spec, tokens[at : at + size], at, adapter="one") for at in range(0, 75, size)]
        found[size] = np.concatenate([submit(backend, step).logits for step in steps])
        assert np.array_equal(found[size], found[75]), size


def test_strength() -> None:
    adapter, tokens = random_adapter(SPEC), draw(40)
    doubled = {weight: replace(target, scale=2 * target.scale) for weight, target in adapter.targets.items()}
    backend = executor(SPEC)
    base = submit(backend, row(SPEC, tokens)).logits
    backend.add_adapter(adapter)
    backend.add_adapter(Adapter("doubled", doubled))
    twice = submit(backend, row(SPEC, tokens, adapter="one", adapter_scale=2.0)).logits
    assert np.array_equal(twice, submit(backend, row(SPEC, tokens, adapter="doubled")).logits)
    assert not np.array_equal(twice, submit(backend, row(SPEC, tokens, adapter="one")).logits)
    assert np.array_equal(base, submit(backend, row(SPEC, tokens, adapter="one", adapter_scale=0.0)).logits)
    assert np.array_equal(base, submit(backend, row(SPEC, tokens)).logits)


def test_bytes_are_charged_before_they_are_used_and_given_back() -> None:
    ledger, adapter = Ledger(), random_adapter(SPEC, rank=17)
    backend = executor(SPEC, ledger=ledger)
    before = ledger.total
    room = 4 * 3 * limits_of(SPEC).tokens * 17
    ledger.limit = before + panel_bytes(adapter) + room - 1
    with pytest.raises(PlanRejected, match="adapter one"):
        backend.add_adapter(adapter)
    assert ledger.total == before
    ledger.limit = None
    backend.add_adapter(adapter)
    assert ledger.total == before + panel_bytes(adapter) + room
    backend.add_adapter(random_adapter(SPEC, "two", rank=3))
    backend.remove_adapter("two")
    backend.remove_adapter("one")
    assert ledger.total == before + room
    backend.close()
    assert ledger.total == 0


def test_a_name_can_be_given_again() -> None:
    tokens, first, second = draw(20), random_adapter(SPEC, seed=1), random_adapter(SPEC, seed=2, rank=21)
    backend = executor(SPEC)
    backend.add_adapter(first)
    was = submit(backend, row(SPEC, tokens, adapter="one")).logits
    backend.remove_adapter("one")
    backend.add_adapter(second)
    now = submit(backend, row(SPEC, tokens, adapter="one")).logits
    backend.remove_adapter("one")
    backend.add_adapter(first)
    assert not np.array_equal(was, now)
    assert np.array_equal(was, submit(backend, row(SPEC, tokens, adapter="one")).logits)


def test_refusals() -> None:
    backend, adapter = executor(SPEC), random_adapter(SPEC)
    with pytest.raises(InvalidRequest, match="has the adapter one, which is not loaded"):
        submit(backend, row(SPEC, draw(5), adapter="one"))
    backend.add_adapter(adapter)
    with pytest.raises(InvalidRequest, match="loaded already"):
        backend.add_adapter(adapter)
    wide = LowRank(np.ones((2, 31), np.float32), np.ones((32, 2), np.float32), 1.0)
    with pytest.raises(ModelFileError, match=r"\[32, 2\] x \[2, 31\] for layers.0.attn.q.weight, which is \[32, 32\]"):
        backend.add_adapter(Adapter("wide", {"layers.0.attn.q.weight": wide}))
    with pytest.raises(ModelFileError, match=r"changes embed\.weight, which is no product"):
        backend.add_adapter(Adapter("embedding", {"embed.weight": wide}))
    with pytest.raises(ModelFileError, match="changes nothing"):
        backend.add_adapter(Adapter("empty", {}))
