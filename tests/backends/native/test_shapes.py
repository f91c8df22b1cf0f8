"""Random shapes: the native executor against the reference one, and against itself on other instruction sets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="the reference backend needs torch")

from backends.native.build import BLOCKS, BlockStore, executor
from backends.twins import RandomStore, decoder, distance, draw, limits_of, row, submit, windows
from headrace.backends.native.executor import NativeExecutor, Numerics, instruction_sets
from headrace.backends.reference.executor import ReferenceExecutor
from headrace.spec.executor import Executor
from headrace.spec.ledger import Ledger
from headrace.spec.model import ModelSpec, Norm, Rope

NORMS = st.sampled_from([Norm(), Norm("layer", 1e-5, bias=True)])
FLAG = st.booleans()
CAP = st.sampled_from([None, 0.7, 20.0])


@st.composite
def attentions(draw: Any, unit: int) -> dict[str, Any]:
    kv_heads = draw(st.integers(1, 3))
    head_dim = unit * draw(st.integers(1, 2)) if unit > 1 else 2 * draw(st.integers(1, 40))
    return {
        "heads": kv_heads * draw(st.integers(1, 5)),
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "scale": head_dim**-0.5,
        "rope": draw(st.none() | st.integers(1, head_dim // 2).map(lambda half: Rope(2 * half, theta=500.0))),
        "softcap": draw(CAP),
        "qk_norm": draw(st.sampled_from(["none", "head", "full"])),
        "qkv_bias": draw(FLAG),
        "out_bias": draw(FLAG),
    }


@st.composite
def mlps(draw: Any, unit: int) -> dict[str, Any]:
    width = unit * draw(st.integers(1, 150 // unit))
    activation = draw(st.sampled_from(["silu", "gelu", "gelu_tanh", "relu"]))
    experts = draw(st.sampled_from([0, 0, 1, 3, 17]))
    if experts:
        top_k = draw(st.integers(1, min(experts, 4)))
        mixture = {"experts": experts, "top_k": top_k, "renormalise": draw(FLAG)}
        return {"width": width, "activation": activation, **mixture}
    return {"width": width, "activation": activation, "gated": draw(FLAG), "bias": draw(FLAG)}


@st.composite
def models(draw: Any, unit: int) -> ModelSpec:
    """Decoders whose matrices have multiples of `unit` inputs."""
    layer = {"norm": draw(NORMS), "norms": draw(st.sampled_from(["before", "after", "both", "on_residual"]))}
    spec = decoder(
        draw(attentions(unit)),
        draw(mlps(unit)),
        layer,
        hidden=unit * draw(st.integers(1, 150 // unit)),
        vocab=draw(st.integers(3, 150)),
        tied=draw(FLAG),
        final_norm=draw(NORMS),
        logit_softcap=draw(CAP),
        logit_scale=draw(st.sampled_from([1.0, 0.3])),
        embed_scale=draw(st.sampled_from([1.0, 5.0])),
    )
    return windows(spec, *draw(st.lists(st.none() | st.integers(1, 40), min_size=1, max_size=2)))


def answers(backend: Executor, size: int) -> np.ndarray:
    """Logits of a text in chunks of `size`, a decoded token of another one beside each chunk after the first."""
    spec = backend.spec
    text, other = draw(53, 1, spec.vocab), draw(53, 2, spec.vocab)
    found = []
    submit(backend, row(spec, other[:20], slots=range(20, 30)))
    for place, at in enumerate(range(0, len(text), size)):
        rows = [row(spec, text[at : at + size], at, range(10))]
        if place < len(other) - 20:
            rows.append(row(spec, other[20 + place : 21 + place], 20 + place, range(20, 30), sequence=1))
        found.append(submit(backend, *rows).logits)
    return np.concatenate(found)


def check(spec: ModelSpec, store: RandomStore, size: int, threads: int, tolerance: float) -> None:
    native = answers(executor(spec, store), size)
    assert distance(native, answers(ReferenceExecutor(spec, store, limits_of(spec), Ledger()), size)) <= tolerance
    for isa in instruction_sets()[1:]:
        other: NativeExecutor = executor(spec, store, threads=threads, isa=isa)
        assert np.array_equal(answers(other, size), native), isa


@settings(max_examples=20, deadline=None, derandomize=True)
@given(models(unit=1), st.integers(1, 53), st.integers(1, 3))
def test_any_shape_equals_the_reference(spec: ModelSpec, size: int, threads: int) -> None:
    check(spec, RandomStore(spec), size, threads, 2e-5)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(models(unit=32), st.permutations(BLOCKS), st.integers(1, 53), st.integers(1, 3))
def test_any_shape_in_blocks_equals_the_reference(spec: ModelSpec, kinds: list[str], size: int, threads: int) -> None:
    check(spec, BlockStore(spec, kinds), size, threads, 1e-3)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(models(unit=1), st.integers(1, 53), st.integers(1, 3))
def test_any_shape_with_coded_state_is_the_same_everywhere(spec: ModelSpec, size: int, threads: int) -> None:
    numerics = Numerics(state="int8")
    wanted = answers(executor(spec, numerics=numerics), size)
    assert np.isfinite(wanted).all()
    for isa in instruction_sets():
        other = executor(spec, numerics=numerics, threads=threads, isa=isa)
        assert np.array_equal(answers(other, size), wanted), isa
