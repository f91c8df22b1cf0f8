"""Hidden states and cached keys of a veiled folder, as a backend computes them, give the text away."""

from __future__ import annotations

import numpy as np
import pytest

from privacy.attacks.folder import HEADS, HIDDEN, KEY_HEADS, VOCAB, Deployment, deploy

pytest.importorskip("headrace.backends.native._kernels", reason="the native kernels were not built")

from headrace.privacy.attacks.kv import plane_lengths, read_keys
from headrace.privacy.attacks.on_states import cached_keys, hidden_states
from headrace.privacy.attacks.public_model import PublicBlocks
from headrace.spec.errors import InvalidRequest

IDS = np.random.default_rng(5).integers(VOCAB, size=96)
TEXT, TOLD = IDS[:10], 3


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return deploy(tmp_path_factory.mktemp("case"))


def test_states_are_those_of_the_plain_model_turned(case: Deployment) -> None:
    texts = case.truth.token_map[TEXT], TEXT
    plain, veiled = (
        PublicBlocks(model.spec, model.loaded.weights, 1, 32, threads=1, backend="native").states(ids.tolist())
        for model, ids in zip((case.public, case.deployed), texts, strict=True)
    )
    assert np.allclose(veiled, plain @ case.truth.rotation, atol=1e-3)


def test_a_text_is_read_from_hidden_states(case: Deployment) -> None:
    told = case.truth.token_map[TEXT[:TOLD]].tolist()
    found = hidden_states(case.public, case.deployed, TEXT, 1, told, case.truth.token_map, threads=1)
    assert found.mass.value > 0.85 and found.mass.low > found.mass.chance and found.scored <= len(TEXT) - TOLD
    assert found.cost.seconds > 0 and found.cost.tokens == len(TEXT)
    sure = hidden_states(case.public, case.deployed, TEXT, 1, told, threads=1)
    assert sure.scored_by == "confidence" and sure.mass.value > 0.85


def test_states_under_an_independent_key_say_nothing(case: Deployment) -> None:
    found = hidden_states(case.public, case.deployed, TEXT, 1, (), case.other.token_map, threads=1)
    assert found.mass.contains_chance


def test_a_text_is_read_from_cached_keys(case: Deployment) -> None:
    found = cached_keys(case.public, case.deployed, IDS, case.truth.token_map)
    assert found.mass.value > 0.95 and found.mass.low > found.mass.chance
    assert cached_keys(case.public, case.deployed, IDS).mass.value > 0.9
    null = cached_keys(case.public, case.deployed, IDS, case.other.token_map)
    assert null.mass.contains_chance


def test_a_foreign_cache_is_read_by_chance_only(case: Deployment) -> None:
    table = plane_lengths(case.public)
    noise = np.exp(np.random.default_rng(0).normal(size=(len(IDS), *table.shape[1:])))
    read = read_keys(noise, table)
    assert (read.tokens == case.truth.token_map[IDS]).mean() < 0.1 and read.sure.mean() < 0.3


def test_the_cache_holds_these_lengths(case: Deployment) -> None:
    """Positions turn planes: what a backend has written has the lengths that the attack computes."""
    pytest.importorskip("torch", reason="the reference backend needs torch")
    from headrace.backends.reference.executor import ReferenceExecutor
    from headrace.model.loading import ResidentStore
    from headrace.spec.batch import Batch, Row
    from headrace.spec.executor import Limits
    from headrace.spec.ledger import Ledger

    executor = ReferenceExecutor(
        case.deployed.spec, ResidentStore(case.deployed.tensors), Limits((1,), 16, 1), Ledger(), threads=1
    )
    executor.submit(Batch(0, (Row(0, "prefill", 0, tuple(TEXT.tolist()), ((0,),)),))).result()
    size = HIDDEN // HEADS
    cached = executor._pages.keys[0][0, :, : len(TEXT)].numpy().swapaxes(0, 1)
    executor.close()
    assert cached.shape == (len(TEXT), KEY_HEADS, size)
    lengths = np.hypot(cached[..., : size // 2], cached[..., size // 2 :])
    assert np.allclose(lengths, plane_lengths(case.deployed, TEXT), rtol=1e-4)


def test_what_cannot_be_read_is_refused(case: Deployment) -> None:
    with pytest.raises(InvalidRequest, match="no hidden state 9"):
        hidden_states(case.public, case.deployed, TEXT, 9)
    with pytest.raises(InvalidRequest, match="longer text"):
        hidden_states(case.public, case.deployed, TEXT, 1, TEXT.tolist())
    with pytest.raises(InvalidRequest, match="at least 8"):
        cached_keys(case.public, case.deployed, IDS[:3])
    with pytest.raises(InvalidRequest, match="not below"):
        cached_keys(case.public, case.deployed, IDS + VOCAB)
