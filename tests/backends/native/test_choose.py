"""The native draw against numpy's, over random logits and settings."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("headrace.backends.native._kernels", reason="the native kernels were not built")

from headrace.backends.native.executor import NativeExecutor, instruction_sets
from headrace.engine.sampling import NoiseKey, choose_token
from headrace.evidence.stage import RandomWeights
from headrace.spec.executor import Limits
from headrace.spec.ledger import Ledger
from headrace.spec.model import Attention, Layer, Mlp, ModelSpec, Norm, Rope
from headrace.spec.sampling import Sampling

SETTINGS = {
    "all": Sampling(temperature=1.0),
    "hot": Sampling(temperature=7.0),
    "cold": Sampling(temperature=1e-3),
    "coldest": Sampling(temperature=1e-38),
    "colder than fp32 can say": Sampling(temperature=1e-46),
    "and min-p": Sampling(temperature=1e-46, min_p=0.05),
    "and top-p": Sampling(temperature=1e-46, top_p=0.5),
    "and top-k": Sampling(temperature=1e-46, top_k=3),
    "top-k": Sampling(temperature=0.9, top_k=40),
    "top-k beyond the vocabulary": Sampling(temperature=0.9, top_k=10**6),
    "top-p": Sampling(temperature=0.8, top_p=0.9),
    "top-p, flat": Sampling(temperature=5.0, top_p=0.999),
    "top-p, tiny": Sampling(temperature=1.0, top_p=1e-9),
    "min-p": Sampling(temperature=1.2, min_p=0.05),
    "min-p of one": Sampling(temperature=1.2, min_p=1.0),
    "together": Sampling(temperature=1.0, top_k=100, top_p=0.95, min_p=0.01),
}


def executor(isa: str) -> NativeExecutor:
    spec = ModelSpec("llama", 16, 32, 64, (Layer(Attention(1, 1, 16, 0.25, Rope(16)), Mlp(16), Norm()),), tied=True)
    return NativeExecutor(spec, RandomWeights(spec), Limits((4,), 4, 4), Ledger(), threads=1, isa=isa)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("vocab", [5, 997, 49152])
def test_draws_the_token_that_numpy_draws(name: str, vocab: int) -> None:
    random, backend = np.random.default_rng(vocab), executor(instruction_sets()[0])
    seen = set()
    for trial in range(40 if vocab < 10**4 else 8):
        logits = random.normal(0, random.choice([0.5, 3.0]), vocab).astype(np.float32)
        if trial % 5 == 0:
            logits = np.round(logits)  # many equal ones: they rank by id
        key = NoiseKey(trial, (trial, 1)).words()
        wanted = choose_token(logits, SETTINGS[name], key, 17 * trial)
        assert backend.choose(logits, SETTINGS[name], key, 17 * trial) == wanted
        seen.add(wanted)
    assert len(seen) > 1


def test_every_instruction_set_draws_the_same() -> None:
    logits = np.random.default_rng(0).normal(0, 2, 4096).astype(np.float32)
    draws = [
        [executor(isa).choose(logits, sampling, (1, 2), at) for sampling in SETTINGS.values() for at in range(20)]
        for isa in instruction_sets()
    ]
    assert all(drawn == draws[0] for drawn in draws)


def test_logits_that_are_no_numbers_fail_the_request_alone() -> None:
    logits = np.full(64, np.nan, np.float32)
    with pytest.raises(ValueError, match="not finite"):
        executor("portable").choose(logits, Sampling(), (1, 2), 3)
