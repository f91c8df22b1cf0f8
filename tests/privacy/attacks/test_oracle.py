"""A veiled model asked for nothing writes traffic that gives its token map away; no id of the victim's is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from privacy.attacks.folder import Deployment, deploy

pytest.importorskip("headrace.backends.native._kernels", reason="the native kernels were not built")

from headrace.engine.engine import Engine
from headrace.privacy.attacks.on_traffic import bigram_traffic
from headrace.privacy.attacks.oracle import oracle, written
from headrace.spec.errors import InvalidRequest
from headrace.spec.options import EngineOptions

VOCAB, TOKENS = 40, 8000
OPTIONS = EngineOptions(threads=1, state_memory=8)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return deploy(tmp_path_factory.mktemp("case"), vocab=VOCAB, head=0.5, blocks=0.02)


@pytest.fixture(scope="module")
def known(case: Deployment) -> np.ndarray:
    """The attacker's own text: what the plain model writes is the language that the veiled one learnt."""
    with closing(Engine.load(case.public.path, OPTIONS)) as engine:
        return written(engine, TOKENS, seed=1000)


@pytest.fixture(scope="module")
def veiled(case: Deployment) -> Iterator[Engine]:
    with closing(Engine.load(case.deployed.path, OPTIONS)) as engine:
        yield engine


def test_a_model_writes_what_is_asked_and_the_same_again(veiled: Engine) -> None:
    ids = written(veiled, 700, seed=5)
    assert len(ids) == 700 and ids.min() >= 0 and ids.max() < VOCAB
    assert (written(veiled, 700, seed=5) == ids).all() and (written(veiled, 700, seed=6) != ids).any()


def test_the_model_itself_is_the_oracle(case: Deployment, veiled: Engine, known: np.ndarray) -> None:
    found = oracle(veiled, known, TOKENS, case.deployed.first_id(), case.truth.token_map)
    assert found.types.value > 0.8 and found.types.low > found.types.chance
    assert found.cost.tokens == 0 and found.details["written_tokens"] == TOKENS
    assert found.details["writing_seconds"] > 0 and found.details["agreement"] > 0.9
    null = oracle(veiled, known, TOKENS, case.deployed.first_id(), case.other.token_map)
    assert null.types.contains_chance


def test_known_ids_that_no_attack_can_use_are_refused_before_anything_is_written(
    veiled: Engine, known: np.ndarray
) -> None:
    steps = veiled.stats()["steps"]
    for wrong in (known[:1], known + VOCAB):
        with pytest.raises(InvalidRequest, match="give a longer text"):
            oracle(veiled, wrong, TOKENS)
    assert veiled.stats()["steps"] == steps


def test_without_a_key_agreement_tells_language_from_noise(veiled: Engine, known: np.ndarray) -> None:
    ids = written(veiled, TOKENS)
    right = bigram_traffic(ids, known, VOCAB)
    assert right.scored_by == "confidence" and right.mass.low > right.mass.chance
    noise = bigram_traffic(np.random.default_rng(0).integers(VOCAB, size=TOKENS), known, VOCAB)
    assert noise.mass.value < right.mass.value - 0.1
