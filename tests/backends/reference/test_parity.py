"""The interpreter and the dense model against a forward pass written plainly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backends.oracle import as_torch, oracle
from backends.reference.build import executor
from backends.twins import ENCODER, MODELS, RandomStore, distance, draw, row, submit
from headrace.backends.reference.dense import DenseModel


@pytest.mark.parametrize("name", MODELS)
def test_prefill_and_decode_equal_the_oracle(name: str) -> None:
    spec, tokens = MODELS[name], draw(61)
    wanted, states = oracle(spec, as_torch(RandomStore(spec)), tokens)
    backend = executor(spec)
    every = tuple(range(len(spec.layers) + 1))
    first = submit(backend, row(spec, tokens[:58], reads=every))
    found = [first.logits] + [submit(backend, row(spec, [tokens[i]], i)).logits for i in range(58, 61)]
    assert distance(np.concatenate(found), wanted.numpy()) < 1e-5
    for index in every:
        assert distance(first.hidden[0, index], states[index][:58].numpy()) < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_dense_logits_and_gradients_equal_autograd_of_the_oracle(name: str) -> None:
    spec, store = MODELS[name], RandomStore(MODELS[name])
    tokens = [draw(21, seed) for seed in (1, 2)]
    model = DenseModel(spec, store)
    logits = model(torch.tensor(tokens))
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(3))
    (logits * direction).sum().backward()
    weights = {name: value.requires_grad_() for name, value in as_torch(store).items()}
    wanted = torch.stack([oracle(spec, weights, sequence)[0] for sequence in tokens])
    (wanted * direction).sum().backward()
    assert distance(logits.detach().numpy(), wanted.detach().numpy()) < 1e-5
    gradients = {weight: value.grad.numpy() for weight, value in weights.items() if value.grad is not None}
    assert gradients.keys() == model.parameters().keys()
    # A key's bias shifts all scores of a query alike, so its gradient is zero but for rounding.
    least = 1e-3 * max(np.abs(gradient).max() for gradient in gradients.values())
    for weight, parameter in model.parameters().items():
        assert parameter.grad is not None
        apart = np.abs(parameter.grad.numpy() - gradients[weight]).max()
        assert apart <= 1e-4 * max(np.abs(gradients[weight]).max(), least), weight


def test_encoder_hidden_states_paged_dense_and_packed() -> None:
    long, short = draw(45, 1), draw(13, 2)
    store, backend = RandomStore(ENCODER), executor(ENCODER)
    last = len(ENCODER.layers)
    kinds = dict(logits_from=None, reads=(0, last))
    both = submit(backend, row(ENCODER, long, **kinds), row(ENCODER, short, slots=range(9, 20), **kinds))
    padded = torch.tensor([long, short + (0,) * 32])
    dense = DenseModel(ENCODER, store).hidden(padded, (0, -1), torch.tensor([45, 13]))
    assert both.logits.shape[0] == 0
    for index, tokens in enumerate((long, short)):
        _, states = oracle(ENCODER, as_torch(store), tokens)
        for dense_state, state in zip(dense, (0, last), strict=True):
            assert distance(both.hidden[index, state], states[state].numpy()) < 1e-5
            assert distance(dense_state[index, : len(tokens)].detach().numpy(), states[state].numpy()) < 1e-5


@pytest.mark.parametrize("name", ["grouped-query", "windows", "experts"])
def test_bf16_is_near_the_oracle(name: str) -> None:
    spec, tokens = MODELS[name], draw(40)
    wanted, _ = oracle(spec, as_torch(RandomStore(spec)), tokens)
    found = submit(executor(spec, "bf16"), row(spec, tokens)).logits
    typical = np.median(np.abs(found - wanted.numpy())) / np.abs(wanted.numpy()).max()
    assert 1e-5 < typical < 0.02
