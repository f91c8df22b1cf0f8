"""Every family against transformers in fp32: dense, gradients, prefill and decode, alone and packed."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headrace.backends.reference.dense import DenseModel
from headrace.backends.select import make_executor
from headrace.model.loading import LoadedModel, load_model
from headrace.spec.batch import Batch, Row
from headrace.spec.executor import Executor, Limits
from headrace.spec.ledger import Ledger
from headrace.spec.options import EngineOptions
from model.pages import Runner
from model.twins import LENGTH, TWINS, Twin, make_tokens, make_twin

TOLERANCE = 1e-5
"""Largest difference over largest logit."""
GRADIENT_TOLERANCE = 3e-5
"""Largest difference over the largest gradient of the same weight; 1e-5 is the most that was seen."""

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


BACKENDS = pytest.mark.parametrize("backend", ["reference", "native"])


def executor(loaded: LoadedModel, limits: Limits, backend: Any) -> Executor:
    if backend == "native":
        pytest.importorskip("headrace.backends.native._kernels", reason="the native kernels were not built")
    options = EngineOptions(backend=backend, state_type="fp32", threads=1)
    return make_executor(loaded.spec, loaded.weights, limits, Ledger(), options)


def difference(ours: Any, theirs: Any) -> float:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def reference(model: Any, tokens: Any) -> np.ndarray:
    with torch.no_grad():
        return model(tokens).logits[0].numpy()


def gradients_of(model: Any, twin: Twin, folder: Path) -> dict[str, np.ndarray]:
    """transformers' gradients by canonical name and layout: written as a checkpoint and read as weights are.

    A checkpoint of zeros takes away what reading adds (the 1 of gains that are stored as gain - 1).
    """

    def read(name: str, value: Callable[[torch.nn.Parameter], Any]) -> dict[str, np.ndarray]:
        holder = copy.deepcopy(model)
        with torch.no_grad():
            for held, parameter in zip(holder.parameters(), model.parameters(), strict=True):
                held.copy_(value(parameter))
        holder.save_pretrained(folder / name)
        store = load_model(folder / name, Ledger(), twin.context).weights
        return {weight: tensor.numpy() for weight, tensor in store.weights.items()}

    zeros = read("zeros", torch.zeros_like)
    filled = read("gradients", lambda parameter: 0.0 if parameter.grad is None else parameter.grad)
    return {name: filled[name] - zeros[name] for name in filled}


def check_gradients(dense: DenseModel, theirs: dict[str, np.ndarray]) -> None:
    """Every element of every weight's gradient, against the largest of that weight.

    Without rotary positions a key's bias adds the same to all scores of a query, so that its gradient is
    rounding alone; it is held against that of the value's bias.
    """
    parameters = dense.parameters()
    assert parameters.keys() == theirs.keys()
    rotary = dense.spec.layers[0].attention.rope is not None
    differing = {}
    for name, parameter in parameters.items():
        assert parameter.grad is not None, name
        beside = name if rotary else name.replace("attn.k.bias", "attn.v.bias")
        apart = np.abs(parameter.grad.numpy() - theirs[name]).max() / np.abs(theirs[beside]).max()
        if not apart <= GRADIENT_TOLERANCE:
            differing[name] = float(apart)
    assert not differing


@pytest.mark.parametrize("twin", DECODERS, ids=lambda twin: twin.name)
def test_dense_logits_and_gradients(twin: Twin, pairs: Callable[[Twin], Pair], tmp_path: Path) -> None:
    theirs, loaded = pairs(twin)
    dense = DenseModel(loaded.spec, loaded.weights)
    tokens = make_tokens(1)
    target = torch.randn(LENGTH, loaded.spec.vocab, generator=torch.Generator().manual_seed(2))
    ours_logits, theirs_logits = dense.forward(tokens)[0], theirs(tokens).logits[0]
    assert difference(ours_logits.detach(), theirs_logits.detach()) <= TOLERANCE
    theirs.zero_grad()
    (ours_logits * target).sum().backward()
    (theirs_logits * target).sum().backward()
    check_gradients(dense, gradients_of(theirs, twin, tmp_path))


@BACKENDS
@pytest.mark.parametrize("twin", DECODERS, ids=lambda twin: twin.name)
def test_paged_prefill_and_decode(twin: Twin, backend: str, pairs: Callable[[Twin], Pair]) -> None:
    theirs, loaded = pairs(twin)
    groups, each = len(loaded.spec.state_groups()), LENGTH // 16 + 1
    limits = Limits((3 * each,) * groups, 160, 160)
    runner = Runner(executor(loaded, limits, backend), loaded.spec, each)
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


def test_encoder_hidden_states_and_gradients(pairs: Callable[[Twin], Pair], tmp_path: Path) -> None:
    theirs, loaded = pairs(TWINS[-1])
    dense = DenseModel(loaded.spec, loaded.weights)
    tokens = make_tokens(6)
    ours = dense.hidden(tokens, tuple(range(4)))
    wanted = theirs(tokens, output_hidden_states=True).hidden_states
    for state, expected in zip(ours, wanted, strict=True):
        assert difference(state.detach(), expected.detach()) <= TOLERANCE
    target = torch.randn(wanted[-1].shape, generator=torch.Generator().manual_seed(2))
    theirs.zero_grad()
    (ours[-1] * target).sum().backward()
    (wanted[-1] * target).sum().backward()
    check_gradients(dense, gradients_of(theirs, TWINS[-1], tmp_path))


@BACKENDS
def test_encoder_hidden_states_paged(backend: str, pairs: Callable[[Twin], Pair]) -> None:
    theirs, loaded = pairs(TWINS[-1])
    tokens = make_tokens(7)
    states = tuple(range(len(loaded.spec.layers) + 1))
    pages = ((0, 1, 2),) * len(loaded.spec.state_groups())
    text = Row(0, "prefill", 0, tuple(tokens[0].tolist()), pages, None, states)
    ours = executor(loaded, Limits((3,) * len(pages), LENGTH, 1), backend).submit(Batch(0, (text,))).result().hidden
    with torch.no_grad():
        wanted = theirs(tokens, output_hidden_states=True).hidden_states
    for state in states:
        assert difference(ours[0, state], wanted[state][0]) <= TOLERANCE


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
