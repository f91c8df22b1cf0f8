"""Limits, errors, threads and the ledger of the reference executor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from backends.reference.build import executor
from backends.twins import ENCODER, MODELS, RandomStore, decoder, draw, row, submit
from headrace.backends.reference.executor import ROW_TILE, ReferenceExecutor, longest, workspace_bytes
from headrace.backends.reference.pages import state_bytes
from headrace.model.tensor import Tensor
from headrace.spec.batch import Batch, PageCopy, Row
from headrace.spec.errors import EngineStopped, InvalidRequest, PlanRejected
from headrace.spec.executor import Limits
from headrace.spec.ledger import Ledger
from headrace.spec.model import ModelSpec
from headrace.spec.program import compile_program

SPEC = MODELS["grouped-query"]
GOOD = row(SPEC, draw(20))
LIMITS = Limits((40,), 32, 16)
BAD = {
    "tokens in the batch": replace(GOOD, tokens=draw(33)),
    "rows of logits": replace(GOOD, tokens=draw(20)),
    "page beyond the arena": replace(GOOD, pages=((0, 40),), logits_from=None),
    "negative page": replace(GOOD, pages=((0, -1),), logits_from=None),
    "too few pages": replace(GOOD, pages=((0,),), logits_from=None),
    "no page table": replace(GOOD, pages=(), logits_from=None),
    "token beyond the vocabulary": replace(GOOD, tokens=(SPEC.vocab,), logits_from=None),
    "negative start": replace(GOOD, start=-1, logits_from=None),
    "empty span": replace(GOOD, tokens=(), logits_from=None),
    "logits beyond the span": replace(GOOD, logits_from=21),
    "unknown hidden state": replace(GOOD, logits_from=None, reads=(3,)),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_row_is_refused_in_one_sentence_and_harms_nothing(what: str) -> None:
    backend = executor(SPEC, limits=LIMITS)
    good = replace(GOOD, logits_from=19)
    before = submit(backend, good).logits
    with pytest.raises(InvalidRequest, match=r"^[^\n]+\.$"):
        submit(backend, BAD[what])
    assert np.array_equal(submit(backend, good).logits, before)


@pytest.mark.parametrize("copy", [PageCopy(1, 0, 1), PageCopy(0, 40, 1), PageCopy(0, 0, -1)])
def test_a_copy_outside_the_arena_is_refused(copy: PageCopy) -> None:
    with pytest.raises(InvalidRequest, match=r"PageCopy.*\.$"):
        executor(SPEC).submit(Batch(0, (GOOD,), (copy,)))


def test_an_encoder_takes_whole_rows_without_logits() -> None:
    backend = executor(ENCODER)
    for bad in (row(ENCODER, draw(3)), row(ENCODER, draw(3), 2, logits_from=None)):
        with pytest.raises(InvalidRequest):
            submit(backend, bad)


def test_an_empty_batch_gives_no_rows() -> None:
    assert executor(SPEC).submit(Batch(0, ())).result().logits.shape == (0, SPEC.vocab)


def test_close_gives_everything_back_once() -> None:
    store, ledger = RandomStore(SPEC), Ledger()
    backend = executor(SPEC, ledger=ledger)
    backend._store = store
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


@pytest.mark.parametrize(("name", "dtype"), [("windows", "fp32"), ("experts", "bf16"), ("tied, biases", "bf16")])
def test_ledger_by_formula(name: str, dtype: str) -> None:
    spec, ledger, size = MODELS[name], Ledger(), {"fp32": 4, "bf16": 2}[dtype]
    limits = Limits((40,) * len(spec.state_groups()), 64, 33)
    executor(spec, dtype, limits=limits, ledger=ledger)
    values = sum(tensor.numpy().size for tensor in RandomStore(spec).tensors.values())
    page = [16 * group.values_per_token * size for group in spec.state_groups()]
    assert ledger.by_tag() == {
        "weights": size * values,
        "state": 41 * sum(page),
        "workspace": workspace_bytes(compile_program(spec), limits, getattr(torch, _torch_name(dtype)), ROW_TILE),
    }
    assert sum(state_bytes(spec, limits.pages, size)) == 41 * sum(page)
    assert longest(limits) == 640


def _torch_name(dtype: str) -> str:
    return {"fp32": "float32", "bf16": "bfloat16"}[dtype]


def test_a_plan_that_does_not_fit_is_refused_and_leaves_nothing_reserved() -> None:
    room = Ledger()
    executor(SPEC, ledger=room)
    for missing in (1, room.by_tag()["state"] + 1, room.total - 1000):
        ledger = Ledger(limit=room.total - missing)
        with pytest.raises(PlanRejected):
            executor(SPEC, ledger=ledger)
        assert ledger.total == 0


def test_unknown_dtype_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="fp32, bf16"):
        executor(SPEC, "int3")


def test_importing_backends_loads_no_torch() -> None:
    run = _python("import sys, headrace.backends; print('torch' in sys.modules)")
    assert run == "False"


def _python(code: str) -> str:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout.strip()


MEASURE = """
import json, sys
from backends.reference.test_executor import grow
print(json.dumps(grow()))
"""


class HalfStore(RandomStore):
    """float16 in memory, so that the backend has to decode every weight."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        for name, tensor in self.tensors.items():
            half = tensor.numpy().astype(np.float16)
            self.tensors[name] = Tensor(name, half.shape, "f16", lambda half=half: half)


def peak_model() -> tuple[ModelSpec, Limits]:
    spec = decoder({"heads": 8, "kv_heads": 4, "head_dim": 64}, {"width": 2048}, hidden=512, vocab=20000, context=2048)
    return spec, Limits((512,), 256, 128)


def grow() -> dict[str, int]:
    """Peak growth of resident memory over that of a tiny model and the stored weights, and the ledger's figures."""
    submit(executor(SPEC), GOOD)
    spec, limits = peak_model()
    store, ledger = HalfStore(spec), Ledger()
    before = _status("VmRSS")
    with open("/proc/self/clear_refs", "w", encoding="ascii") as handle:
        handle.write("5")
    backend = ReferenceExecutor(spec, store, limits, ledger)
    prompts = [Row(i, "prefill", 0, draw(128, i, 20000), (tuple(range(8 * i, 8 * i + 8)),), 64) for i in range(2)]
    long = [Row(9, "prefill", at, draw(256, at, 20000), (tuple(range(100, 228)),), 128) for at in range(0, 2048, 256)]
    for step in (prompts, *([one] for one in long)):
        backend.submit(Batch(0, tuple(step)))
    return {"grown": _status("VmHWM") - before, "ledger": ledger.total, **ledger.by_tag()}


def _status(field: str) -> int:
    with open("/proc/self/status", encoding="ascii") as handle:
        return next(int(line.split()[1]) * 1024 for line in handle if line.startswith(field + ":"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's resident memory from /proc")
def test_peak_memory_stays_within_the_ledger() -> None:
    measured = json.loads(_python(MEASURE))
    assert 0.85 * measured["ledger"] <= measured["grown"] <= 1.05 * measured["ledger"], measured
