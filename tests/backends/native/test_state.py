"""Keys and values as codes of 8 bits: how they are rounded, and what attention makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends.native.build import executor
from backends.twins import ENCODER, MODELS, PAGES, VOCAB, RandomStore, decoder, distance, draw, row, submit, windows
from headrace.backends.native.executor import NativeExecutor, Numerics, StateType
from headrace.model.tensor import Tensor
from headrace.spec.model import PAGE_TOKENS, ModelSpec

HEADS, DIM, HIDDEN = 2, 24, 80
ONE_LAYER = windows(decoder({"rope": None, "head_dim": DIM, "scale": DIM**-0.5}, hidden=HIDDEN), None)
K, V, EMBED = "layers.0.attn.k.weight", "layers.0.attn.v.weight", "embed.weight"
TOKENS = draw(45)
RNG = np.random.default_rng(7)
SIZES = (10.0 ** RNG.uniform(-3, 1, (HEADS, 1, VOCAB))).astype(np.float32)
"""Keys and values of every head and token are of another size."""


class ColumnStore(RandomStore):
    """Key and value of a token are its columns of the weights, times a constant: embeddings are unit vectors."""

    def __init__(self, **columns: np.ndarray) -> None:
        super().__init__(ONE_LAYER)
        self.put(EMBED, np.eye(VOCAB, HIDDEN))
        self.put("layers.0.attn_norm.weight", np.ones(HIDDEN))
        for name in (K, V):
            self.put(name, columns.get(name.split(".")[3], sized(self.tensors[name].numpy())))

    def put(self, name: str, values: np.ndarray) -> None:
        self.tensors[name] = Tensor.of(name, values.astype(np.float32))


def sized(weight: np.ndarray) -> np.ndarray:
    columns = np.array(weight).reshape(HEADS, DIM, HIDDEN)
    columns[..., :VOCAB] *= SIZES
    return columns.reshape(HEADS * DIM, HIDDEN)


def filled(store: RandomStore, state: StateType, **options: Any) -> tuple[NativeExecutor, np.ndarray]:
    """The executor and its logits after all tokens went through."""
    backend = executor(ONE_LAYER, store, numerics=Numerics(state=state), **options)
    return backend, submit(backend, row(ONE_LAYER, TOKENS)).logits


def stored(backend: NativeExecutor) -> tuple[np.ndarray, np.ndarray]:
    """Keys and values of the tokens as they lie in the pages of the first layer: [tokens, heads, DIM]."""
    found = []
    for arena, width, order in zip(backend._state[0], (DIM, 32), ((0, 3, 1, 2), (0, 2, 1, 3)), strict=True):
        blocks = arena.reshape(PAGES, HEADS, -1)
        shape = (PAGES, HEADS, *((width, PAGE_TOKENS) if width == DIM else (PAGE_TOKENS, width)))
        if backend.numerics.state == "int8":
            codes, scales = blocks[..., : -4 * PAGE_TOKENS], blocks[..., -4 * PAGE_TOKENS :].copy().view(np.float32)
            steps = scales[..., None, :] if width == DIM else scales[..., None]
            values = codes.copy().view(np.int8).reshape(shape) * steps
        else:
            values = blocks.copy().view(np.float32).reshape(shape)
        found.append(values.transpose(order).reshape(-1, HEADS, width)[: len(TOKENS), :, :DIM])
    return found[0], found[1]


def rounded(x: np.ndarray) -> np.ndarray:
    """The rule, in numpy."""
    step = np.abs(x).max(axis=-1, keepdims=True) / np.float32(127)
    inverse = np.divide(1, step, out=np.zeros_like(step), where=step > 1e-30)
    return np.rint(x * inverse).astype(np.int8) * step


def test_every_head_is_rounded_by_the_rule_and_no_further_than_half_a_step() -> None:
    coded, plain = (stored(filled(ColumnStore(), state)[0]) for state in ("int8", "fp32"))
    for codes, values in zip(coded, plain, strict=True):
        assert np.array_equal(codes, rounded(values))
        step = np.abs(values).max(axis=-1, keepdims=True) / 127
        assert (np.abs(codes - values) <= step * 0.50001).all() and not np.array_equal(codes, values)


def test_attention_sees_codes_times_scales_and_nothing_else() -> None:
    """In fp32, on weights that give just the keys and values that the codes stand for, the logits are the same."""
    backend, logits = filled(ColumnStore(), "int8")
    factor = (1 / HIDDEN + ONE_LAYER.layers[0].norm.eps) ** -0.5  # what the norm makes of a one
    columns = {name: np.zeros((HEADS * DIM, HIDDEN)) for name in ("k", "v")}
    for name, values in zip("kv", stored(backend), strict=True):
        columns[name][:, list(TOKENS)] = values.reshape(len(TOKENS), -1).T / factor
    same = filled(ColumnStore(**columns), "fp32")[1]
    plain = filled(ColumnStore(), "fp32")[1]
    assert distance(logits, same) < 1e-5 < 1e-3 < distance(logits, plain)


def test_nothing_tiny_and_large_are_stored_as_what_they_are() -> None:
    weight = np.ones((HEADS * DIM, HIDDEN))
    weight[:, 0::5], weight[:, 1::5], weight[:, 2::5], weight[:, 3::5] = 0, 1e-37, 3e-42, 1e36
    weight *= np.linspace(-1, 1, HEADS * DIM)[:, None]
    store = ColumnStore(k=weight, v=weight)
    coded, plain = (stored(filled(store, state)[0]) for state in ("int8", "fp32"))
    for codes, values in zip(coded, plain, strict=True):
        step = np.abs(values).max(axis=-1, keepdims=True) / 127
        assert np.isfinite(codes).all()
        assert (np.abs(codes - values) <= np.maximum(step * 0.50001, 1e-28)).all()
        assert (codes[values == 0] == 0).all()


def test_without_keys_and_values_the_logits_are_those_of_fp32() -> None:
    nothing = np.zeros((HEADS * DIM, HIDDEN))
    store = ColumnStore(k=nothing, v=nothing)
    assert np.array_equal(filled(store, "int8")[1], filled(store, "fp32")[1])


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["k", "v"])
def test_a_value_that_is_no_number_is_not_rounded_to_one(name: str, value: float) -> None:
    weight = np.ones((HEADS * DIM, HIDDEN))
    weight[DIM + 5, TOKENS[20]] = value
    logits = filled(ColumnStore(**{name: weight}), "int8")[1]
    assert np.isnan(logits[20:]).all()


# Now and then a router takes another expert.
@pytest.mark.parametrize("name", MODELS)
def test_logits_stay_near_those_of_fp32(name: str) -> None:
    check_near(MODELS[name], row(MODELS[name], draw(61)), 0.3 if "experts" in name else 0.05)


def test_hidden_states_of_an_encoder_stay_near_those_of_fp32() -> None:
    last = len(ENCODER.layers)
    check_near(ENCODER, row(ENCODER, draw(45), logits_from=None, reads=(last,)), 0.05)


def check_near(spec: ModelSpec, one: Any, most: float) -> None:
    found = [submit(executor(spec, numerics=Numerics(state=state)), one) for state in ("int8", "fp32")]
    coded, plain = (result.hidden.get((0, len(spec.layers)), result.logits) for result in found)
    assert 0 < distance(coded, plain) <= most


def test_the_profile_names_the_type() -> None:
    backend = executor(ONE_LAYER, numerics=Numerics("int8", "int8"))
    assert backend.guarantees.profile == "native/int8-g32-head-int16/kv-int8/blocks16"
