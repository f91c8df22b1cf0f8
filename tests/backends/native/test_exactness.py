"""Equal bits whatever the company, order, chunks, page slots, stale pages, threads and instruction set."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

from backends.native.build import BLOCKS, SUPER_BLOCKS, BlockStore, executor, widened
from backends.twins import ENCODER, MODELS, PAGES, RandomStore, decoder, draw, row, submit
from headrace.backends.native.executor import STATE_TYPES, NativeExecutor, Numerics, instruction_sets
from headrace.spec.batch import PageCopy, Row
from headrace.spec.executor import StepResult, WeightStore
from headrace.spec.model import ModelSpec, Rope

TOKENS = 75
MIXED = (*BLOCKS, "f16", "bf16")
LARGE = decoder(
    {"heads": 16, "kv_heads": 4, "head_dim": 48, "scale": 48**-0.5, "rope": Rope(48)}, {"width": 768}, hidden=256
)
"""Products of many panels, heads of three vectors, and four heads that share a key."""
STORAGE = ("floats", "int16", "int8")
CASES = list(itertools.product([*MODELS, "large"], STORAGE, STATE_TYPES))


def model(name: str, storage: str) -> ModelSpec:
    if name == "large":
        return LARGE
    spec = ENCODER if name == "encoder" else MODELS[name]
    return spec if storage == "floats" else widened(spec)


@cache
def weights(name: str, storage: str) -> WeightStore:
    spec = model(name, storage)
    if storage == "floats":
        return RandomStore(spec)
    return BlockStore(spec, (*SUPER_BLOCKS, "Q4_1") if name == "large" else MIXED)


def load(name: str, storage: str, state: Any, **options: Any) -> NativeExecutor:
    numerics = Numerics("int8" if storage == "int8" else "int16", state)
    return executor(model(name, storage), weights(name, storage), numerics=numerics, **options)


def soil(backend: NativeExecutor) -> None:
    """Fills every page with infinities and NaNs by turns; where it has codes, they are any and their scales those."""
    for arena in itertools.chain(*backend._state):
        floats = arena.reshape(-1).view(np.float16 if backend.numerics.state == "fp16" else np.float32)
        floats[0::2], floats[1::2] = np.inf, np.nan


def every_logit(backend: NativeExecutor, size: int = TOKENS, slots: Sequence[int] = range(PAGES)) -> np.ndarray:
    """Logits of all tokens, computed `size` tokens a step."""
    spec = backend.spec
    tokens = draw(TOKENS, vocab=spec.vocab)
    steps = [row(spec, tokens[at : at + size], at, slots) for at in range(0, TOKENS, size)]
    found = np.concatenate([submit(backend, step).logits for step in steps])
    assert np.isfinite(found).all()
    return found


@pytest.mark.parametrize(("name", "storage", "state"), CASES)
def test_chunks_page_slots_and_stale_pages(name: str, storage: str, state: str) -> None:
    backend = load(name, storage, state)
    assert backend.guarantees.bit_exact
    whole = every_logit(backend)
    for size, slots in ((1, range(PAGES)), (3, (31, 2, 17, 5, 11)), (7, range(PAGES)[::-1]), (16, range(4, PAGES))):
        soil(backend)
        assert np.array_equal(whole, every_logit(backend, size, slots)), size


@pytest.mark.parametrize(("name", "storage", "state"), CASES)
def test_threads_and_instruction_sets(name: str, storage: str, state: str) -> None:
    wanted = every_logit(load(name, storage, state))
    others = [(2, None), (3, None), *((1, isa) for isa in instruction_sets()[1:])]
    for threads, isa in others:
        backend = load(name, storage, state, threads=threads, isa=isa)
        assert np.array_equal(wanted, every_logit(backend)), (threads, isa)
        assert np.array_equal(wanted, every_logit(backend, 16)), (threads, isa)


def crowd(spec: ModelSpec) -> tuple[list[Row], list[Row]]:
    """Six sequences: what they have prefilled, and then a decoded token or a chunk of 11 of each."""
    before, after = [], []
    for index in range(6):
        tokens, slots = draw(20 + 9 * index, index, spec.vocab), range(6 * index, 6 * index + 6)
        half = len(tokens) - (1 if index % 2 else 11)
        before.append(row(spec, tokens[:half], 0, slots, sequence=index, logits_from=None))
        after.append(row(spec, tokens[half:], half, slots, sequence=index, reads=(1,)))
    return before, after


@pytest.mark.parametrize(("name", "storage", "state"), CASES)
def test_company_and_order(name: str, storage: str, state: str) -> None:
    backend = load(name, storage, state)
    before, after = crowd(backend.spec)
    for member in before:
        submit(backend, member)
    alone = {member.sequence: submit(backend, member) for member in after}
    for threads, isa in ((1, None), (3, None), (2, "portable")):
        backend = load(name, storage, state, threads=threads, isa=isa)
        soil(backend)
        submit(backend, *before)
        for order in (after, after[::-1], after[1::2] + after[::2]):
            check_crowd(submit(backend, *order), order, alone)


def check_crowd(together: StepResult, order: list[Row], alone: dict[int, StepResult]) -> None:
    at = 0
    for place, member in enumerate(order):
        wanted = alone[member.sequence]
        assert np.array_equal(together.logits[at : at + len(wanted.logits)], wanted.logits)
        assert np.array_equal(together.hidden[place, 1], wanted.hidden[0, 1])
        at += len(wanted.logits)


@pytest.mark.parametrize("storage", STORAGE)
@pytest.mark.parametrize("state", STATE_TYPES)
def test_encoder_rows_alone_and_packed(storage: str, state: str) -> None:
    spec, last = model("encoder", storage), len(ENCODER.layers)
    rows = [
        row(spec, draw(5 + 9 * i, i), slots=range(7 * i, 7 * i + 4), logits_from=None, reads=(last,)) for i in range(5)
    ]
    backend = load("encoder", storage, state)
    alone = [submit(backend, one).hidden[0, last] for one in rows]
    for threads, isa in itertools.product((1, 2, 3), instruction_sets()):
        backend = load("encoder", storage, state, threads=threads, isa=isa)
        soil(backend)
        packed = submit(backend, *rows)
        for index, wanted in enumerate(alone):
            assert np.array_equal(packed.hidden[index, last], wanted), (threads, isa)


@pytest.mark.parametrize("name", ["grouped-query", "windows"])
@pytest.mark.parametrize("state", STATE_TYPES)
def test_a_copied_page_continues_bit_equal(name: str, state: str) -> None:
    backend = load(name, "floats", state)
    spec, tokens = backend.spec, draw(41)
    parent = row(spec, tokens, slots=range(10))
    submit(backend, row(spec, tokens[:40], slots=range(10)))
    wanted = submit(backend, row(spec, tokens[40:], 40, range(10))).logits
    groups = range(len(parent.pages))
    forked = tuple((*parent.pages[group][:2], 30) for group in groups)
    copies = tuple(PageCopy(group, parent.pages[group][2], 30) for group in groups)
    child = Row(1, "decode", 40, tokens[40:], forked, 0)
    assert np.array_equal(submit(backend, child, copies=copies).logits, wanted)
    submit(backend, Row(2, "prefill", 0, draw(16, 9), ((30,),) * len(groups)))
    assert not np.array_equal(submit(backend, child).logits, wanted)
