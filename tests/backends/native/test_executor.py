"""Limits, errors, threads and the ledger of the native executor."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from backends.native.build import executor
from backends.twins import MODELS, RandomStore, draw, row, submit
from headrace.backends.native.executor import Numerics, state_bytes
from headrace.spec.batch import Batch
from headrace.spec.errors import EngineStopped, InvalidRequest, PlanRejected
from headrace.spec.executor import Limits
from headrace.spec.ledger import Ledger

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


@pytest.mark.parametrize(("name", "state"), [("windows", "fp32"), ("experts", "fp16"), ("grouped-query", "fp16")])
def test_the_ledger_holds_the_pages_of_every_group(name: str, state: str) -> None:
    spec, ledger, size = MODELS[name], Ledger(), {"fp32": 4, "fp16": 2}[state]
    backend = executor(spec, ledger=ledger, numerics=Numerics(state=state))
    counted = sum(arena.nbytes for arenas in backend._state for arena in arenas)
    assert ledger.by_tag()["state"] == counted == sum(state_bytes(spec, backend.limits, size))


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
