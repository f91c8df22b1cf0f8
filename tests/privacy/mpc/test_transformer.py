"""The decoder as array code: equal to the engine's in exact functions, near it in approximate ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from headrace.evidence.stage import RandomWeights, Stage, tiny_spec
from headrace.model.loading import LoadedModel, ResidentStore
from headrace.model.tensor import Tensor
from headrace.privacy.mpc import approximations, transformer
from headrace.privacy.mpc.transformer import STILL, Calm
from headrace.privacy.mpc.weights import MOST_SQUARES, Prepared, calming, onehot, plain_logits, shape_of
from headrace.spec.errors import UnsupportedModel
from headrace.spec.model import ModelSpec, Norm

TOKENS = [3, 14, 15, 92, 65, 35, 89, 79, 3, 3]


def loaded(spec: ModelSpec) -> LoadedModel:
    held = RandomWeights(spec)._held
    return LoadedModel(spec, ResidentStore(held), None, "tiny", None, {}, 0)  # type: ignore[arg-type]


def logits(spec: ModelSpec, functions: approximations.Functions) -> np.ndarray:
    shape = shape_of(spec, len(TOKENS))
    return plain_logits(Prepared(loaded(spec), shape, functions.exp_scale), shape, functions, TOKENS)


def test_calmed_norms_compute_the_same() -> None:
    """Whatever a norm scales before or after, the next matrix has made good."""
    shape, functions = shape_of(tiny_spec(), len(TOKENS)), approximations.exact()
    calm: list[Calm] = [(1.0, 1 / 16), (1 / 256, 1.0), (1 / 16, 1.0), STILL, (1.0, 1 / 4)]
    plain, calmed = Prepared(loaded(tiny_spec()), shape), Prepared(loaded(tiny_spec()), shape, calm=calm)
    h = one = plain.embedding()[TOKENS]
    for index in range(shape.layers):
        pair = replace(shape, calm=(calm[2 * index], calm[2 * index + 1]))
        one = transformer.block(np, functions, pair, one, calmed.layer(index))
        h = transformer.block(np, functions, shape, h, plain.layer(index))
    assert np.allclose(one, h, atol=1e-4) and not np.array_equal(plain.layer(1)["up"], calmed.layer(0)["up"])
    last = transformer.head(np, functions, replace(shape, calm=(calm[4], STILL)), one, calmed.head())
    assert np.allclose(last, transformer.head(np, functions, shape, h, plain.head()), atol=1e-3)


def test_long_rows_are_calmed_before_they_are_squared() -> None:
    shape = shape_of(tiny_spec(), 4)
    held = loaded(tiny_spec())
    assert set(calming(Prepared(held, shape), shape, [1, 2])) <= {STILL, (1.0, 1 / 4), (1.0, 1 / 16), (1.0, 1 / 64)}
    table = held.weights.weights["embed.weight"]  # type: ignore[attr-defined]
    held.weights.weights["embed.weight"] = Tensor.of("embed.weight", 1e4 * table.numpy())  # type: ignore[attr-defined]
    before, after = calming(Prepared(held, shape), shape, [1, 2])[0]
    most = (held.weights.weights["embed.weight"].numpy()[[1, 2]] ** 2).sum(-1).max()  # type: ignore[attr-defined]
    assert before < 1 == after and most * before**2 <= MOST_SQUARES < most * (16 * before) ** 2


def test_exact_functions_give_the_engines_log_probabilities() -> None:
    found = logits(tiny_spec(), approximations.exact())
    found = found - np.logaddexp.reduce(found, axis=-1, keepdims=True)
    with Stage.tiny() as stage, stage.engine() as engine:
        told = engine.open_now(TOKENS[:1]).score([TOKENS[1:]]).result()[0]
    ours = found[np.arange(len(TOKENS) - 1), TOKENS[1:]]
    assert np.allclose(ours, told, atol=1e-2), "the engine rounds activations to 16 bits"


@pytest.mark.parametrize("activation", ["silu", "gelu"])
def test_approximations_stay_near(activation: str) -> None:
    spec = tiny_spec()
    layers = tuple(replace(layer, mlp=replace(layer.mlp, activation=activation)) for layer in spec.layers)
    spec = replace(spec, layers=layers)
    apart = np.abs(logits(spec, approximations.approximate(np)) - logits(spec, approximations.exact()))
    assert 0 < apart.max() < 1e-2


def test_rows_are_one_hot() -> None:
    rows = onehot([2, 0], 4)
    assert rows.tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]] and rows.dtype == np.float32


def test_what_is_not_llama_shaped_is_refused() -> None:
    spec = tiny_spec()
    biased = replace(spec.layers[0].attention, qkv_bias=True)
    for other in (
        replace(spec, layers=(replace(spec.layers[0], attention=biased),) * 2),
        replace(spec, layers=(spec.layers[0], replace(spec.layers[1], norms="after"))),
        replace(spec, final_norm=Norm("layer")),
    ):
        with pytest.raises(UnsupportedModel, match="llama-shaped"):
            shape_of(other, 4)
