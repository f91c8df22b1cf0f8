"""Every family against transformers in fp32: dense, gradients, prefill and decode, alone and packed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headrace.backends.reference.dense import DenseModel
from headrace.backends.reference.executor import ReferenceExecutor
from headrace.model.loading import LoadedModel, load_model
from headrace.spec.executor import Limits
from headrace.spec.ledger import Ledger
from model.pages import Runner
from model.twins import LENGTH, TWINS, Twin, make_tokens, make_twin

TOLERANCE = 1e-5
"""Largest difference over largest logit."""

DECODERS = [twin for twin in TWINS if twin.family != "bert"]


Pair = tuple[Any, LoadedModel]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Twin], Pair]:
    """A twin and what we load of it, made once."""

    @functools.cache
    def make(twin_name: str) -> Pair:
        twin = next(twin for twin in TWINS if twin.name == twin_name)
        folder = tmp_path_factory.mktemp(twin.name)
        return make_twin(twin, folder), load_model(folder, Ledger(), twin.context)

    return lambda twin: make(twin.name)


def difference(ours: Any, theirs: Any) -> float:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def reference(model: Any, tokens: Any) -> np.ndarray:
    with torch.no_grad():
        return model(tokens).logits[0].numpy()


@pytest.mark.parametrize("twin", DECODERS, ids=lambda twin: twin.name)
def test_dense_logits_and_gradients(twin: Twin, pairs: Callable[[Twin], Pair]) -> None:
    theirs, loaded = pairs(twin)
    dense = DenseModel(loaded.spec, loaded.weights)
    tokens = make_tokens(1)
    target = torch.randn(LENGTH, loaded.spec.vocab, generator=torch.Generator().manual_seed(2))
    ours_logits, theirs_logits = dense.forward(tokens)[0], theirs(tokens).logits[0]
    assert difference(ours_logits.detach(), theirs_logits.detach()) <= TOLERANCE
    theirs.zero_grad()
    (ours_logits * target).sum().backward()
    (theirs_logits * target).sum().backward()
    gradients = {name: parameter.grad for name, parameter in dense.parameters().items()}
    assert all(gradient is not None for gradient in gradients.values())
    embedding = theirs.get_input_embeddings().weight.grad
    assert difference(gradients["embed.weight"], embedding) <= TOLERANCE * 10
    ours_norm = sum(float(gradient.double().square().sum()) for gradient in gradients.values())
    theirs_norm = sum(float(p.grad.double().square().sum()) for p in theirs.parameters() if p.grad is not None)
    assert ours_norm == pytest.approx(theirs_norm, rel=1e-4)


@pytest.mark.parametrize("twin", DECODERS, ids=lambda twin: twin.name)
def test_paged_prefill_and_decode(twin: Twin, pairs: Callable[[Twin], Pair]) -> None:
    theirs, loaded = pairs(twin)
    groups, each = len(loaded.spec.state_groups()), LENGTH // 16 + 1
    limits = Limits((3 * each,) * groups, 160, 160)
    runner = Runner(ReferenceExecutor(loaded.spec, loaded.weights, limits, Ledger()), loaded.spec, each)
    texts = [make_tokens(seed) for seed in (3, 4, 5)]
    wanted = [reference(theirs, text) for text in texts]
    first, second, third = (text[0].tolist() for text in texts)
    decoded = (runner.run([(0, at, first[at : at + 1])])[0] for at in range(30, LENGTH))
    alone = [*runner.run([(0, 0, first[:30])]), *decoded]
    assert difference(np.concatenate(alone), wanted[0]) <= TOLERANCE
    packed = runner.run([(1, 0, second[:17]), (0, 0, first), (2, 0, third[:40])])
    rest = [
        runner.run([(2, 40 + i, third[40 + i : 41 + i]), (1, 17 + 2 * i, second[17 + 2 * i : 19 + 2 * i])])
        for i in range(8)
    ]
    ours_second = np.concatenate([packed[0], *(step[1] for step in rest)])
    ours_third = np.concatenate([packed[2], *(step[0] for step in rest)])
    assert difference(packed[1], wanted[0]) <= TOLERANCE
    assert difference(ours_second, wanted[1][: len(ours_second)]) <= TOLERANCE
    assert difference(ours_third, wanted[2]) <= TOLERANCE


def test_encoder_hidden_states_and_gradients(pairs: Callable[[Twin], Pair]) -> None:
    theirs, loaded = pairs(TWINS[-1])
    dense = DenseModel(loaded.spec, loaded.weights)
    tokens = make_tokens(6)
    ours = dense.hidden(tokens, tuple(range(4)))
    wanted = theirs(tokens, output_hidden_states=True).hidden_states
    for state, expected in zip(ours, wanted, strict=True):
        assert difference(state.detach(), expected.detach()) <= TOLERANCE
    ours[-1].square().sum().backward()
    wanted[-1].square().sum().backward()
    ours_gradient = dense.parameters()["embed.positions"].grad
    theirs_gradient = theirs.embeddings.position_embeddings.weight.grad
    assert difference(ours_gradient, theirs_gradient) <= TOLERANCE * 10


def test_every_family_has_a_twin() -> None:
    from headrace.model.families import FAMILIES

    assert {family.name for family in FAMILIES} == {twin.family for twin in TWINS}


def test_dynamic_rope_beyond_the_trained_length_matches_at_the_last_position(tmp_path: Path) -> None:
    """There every token's frequency depends on its own position here, on the whole length in transformers."""
    from headrace.spec.rope import rope_frequencies

    twin = next(twin for twin in TWINS if twin.name == "llama-dynamic")
    theirs = make_twin(twin, tmp_path)
    rope = load_model(tmp_path, Ledger()).spec.layers[0].attention.rope
    assert rope is not None
    rotary = theirs.model.rotary_emb
    rotary(torch.zeros(1, 1), torch.arange(200)[None])
    assert difference(rope_frequencies(rope, 200), rotary.inv_freq) <= 1e-6
