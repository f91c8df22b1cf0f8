"""Limits, errors, threads and the ledger of the native executor."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import numpy as np
import pytest

from backends.native.build import executor
from backends.twins import MODELS, RandomStore, draw, row, submit
from headrace.backends.native.arena import Arena
from headrace.backends.native.executor import STATE_TYPES, Numerics, StateType, page_bytes, state_bytes
from headrace.spec.batch import Batch
from headrace.spec.errors import EngineStopped, InvalidRequest, PlanRejected
from headrace.spec.executor import Limits
from headrace.spec.ledger import Ledger
from headrace.spec.model import PAGE_TOKENS, Attention

SPEC = MODELS["grouped-query"]
GOOD = row(SPEC, draw(20))


def test_a_bad_row_is_refused_and_harms_nothing() -> None:
    backend = executor(SPEC, limits=Limits((40,), 32, 16))
    good = replace(GOOD, logits_from=19)
    before = submit(backend, good).logits
    for bad in (replace(GOOD, tokens=draw(33)), GOOD, replace(good, pages=((0, 40),)), replace(good, tokens=())):
        with pytest.raises(InvalidRequest, match=r"^[^\n]+\.$"):
            submit(backend, bad)
    assert np.array_equal(submit(backend, good).logits, before)


def test_an_empty_batch_gives_no_rows() -> None:
    assert executor(SPEC).submit(Batch(0, ())).result().logits.shape == (0, SPEC.vocab)


def test_close_gives_everything_back_once() -> None:
    store, ledger = RandomStore(SPEC), Ledger()
    backend = executor(SPEC, store, ledger=ledger)
    assert ledger.total > 0
    backend.close()
    backend.close()
    assert (ledger.total, store.released) == (0, 1)
    with pytest.raises(EngineStopped):
        submit(backend, GOOD)


def test_another_thread_computes_the_same_bits() -> None:
    backend, found = executor(SPEC, threads=2), []
    here = submit(backend, GOOD).logits
    worker = threading.Thread(target=lambda: found.append(submit(backend, GOOD).logits))
    worker.start()
    worker.join()
    assert np.array_equal(here, found[0])


@pytest.mark.parametrize("state", STATE_TYPES)
@pytest.mark.parametrize("name", ["windows", "experts", "grouped-query"])
def test_the_ledger_holds_the_pages_of_every_group(name: str, state: StateType) -> None:
    spec, ledger = MODELS[name], Ledger()
    backend = executor(spec, ledger=ledger, numerics=Numerics(state=state))
    counted = sum(arena.nbytes for arenas in backend._state for arena in arenas)
    assert ledger.by_tag()["state"] == counted == sum(state_bytes(spec, backend.limits, state))


@pytest.mark.parametrize(("state", "expected"), [("fp16", 512), ("fp32", 1024), ("int8", 272)])
def test_bytes_of_a_token(state: StateType, expected: int) -> None:
    """Of two KV heads of 64: an int8 head has a scale of four bytes for its key and one for its value."""
    attention = Attention(heads=4, kv_heads=2, head_dim=64, scale=0.125)
    assert sum(page_bytes(attention, state)) == expected * PAGE_TOKENS


def test_a_plan_that_does_not_fit_is_refused_and_leaves_nothing_reserved() -> None:
    room = Ledger()
    executor(SPEC, ledger=room)
    for missing in (1, room.by_tag()["state"] + 1, room.total - 1000):
        ledger = Ledger(limit=room.total - missing)
        with pytest.raises(PlanRejected):
            executor(SPEC, ledger=ledger)
        assert ledger.total == 0


def test_an_instruction_set_that_the_machine_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="does not run sse9"):
        executor(SPEC, isa="sse9")


def resident_bytes() -> int:
    """Anonymous memory of this process."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="only Linux tells what is resident")
def test_the_first_step_does_not_wait_for_all_pages_and_the_rest_follows() -> None:
    pages = 64 * 2**20 // sum(state_bytes(SPEC, Limits((1,), 1, 1), "fp32"))
    before = resident_bytes()
    backend = executor(SPEC, limits=Limits((pages,), 32, 16))
    arena = sum(array.nbytes for arrays in backend._state for array in arrays)
    good = replace(GOOD, logits_from=19)
    first = submit(backend, good).logits
    backend._arena.wait()
    assert arena > 63 * 2**20 and resident_bytes() - before > arena * 0.98
    assert np.array_equal(submit(backend, good).logits, first)
    backend.close()


def test_backing_memory_changes_no_byte() -> None:
    arena = Arena(3 * 4096 + 5)
    parts = [arena.take(5000), arena.take(3 * 4096 + 5 - 5000)]
    for part in parts:
        assert not part.any()
        part[:] = np.arange(len(part)) % 251
    arena.back()
    arena.wait()
    assert all(np.array_equal(part, np.arange(len(part)) % 251) for part in parts)
    with pytest.raises(ValueError, match="bytes"):
        arena.take(1)
    arena.close()
