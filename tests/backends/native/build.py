"""The native executor of a random twin; twins whose matrices are stored in ggml's blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backends.twins import RandomStore, limits_of
from headrace.model.tensor import Tensor, row_bytes
from headrace.spec.executor import WeightStore
from headrace.spec.ledger import Ledger
from headrace.spec.model import ModelSpec

pytest.importorskip("headrace.backends.native._kernels", reason="the native kernels were not built")

from gguf import quants

from headrace.backends.native.executor import NativeExecutor, Numerics

BLOCKS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
SUPER_BLOCKS = ("Q4_K", "Q5_K", "Q6_K")
EXACT = Numerics(state="fp32")


def executor(spec: ModelSpec, store: WeightStore | None = None, **options: Any) -> NativeExecutor:
    settings = {"limits": limits_of(spec), "ledger": Ledger(), "numerics": EXACT, "threads": 1} | options
    return NativeExecutor(spec, RandomStore(spec) if store is None else store, **settings)


def widened(spec: ModelSpec) -> ModelSpec:
    """The same model twice as wide, so that the inputs of all its matrices are multiples of 32."""
    layers = []
    for layer in spec.layers:
        att = layer.attention
        rope = replace(att.rope, dim=2 * att.rope.dim) if att.rope else None
        attention = replace(att, head_dim=2 * att.head_dim, rope=rope)
        layers.append(replace(layer, attention=attention, mlp=replace(layer.mlp, width=2 * layer.mlp.width)))
    return replace(spec, hidden=2 * spec.hidden, layers=tuple(layers))


class BlockStore(RandomStore):
    """Random weights; matrices and experts in the given kinds by turns: ggml's blocks, f16 or bf16."""

    def __init__(self, spec: ModelSpec, kinds: Sequence[str] = BLOCKS, seed: int = 0) -> None:
        super().__init__(spec, seed)
        matrices = [name for name, tensor in self.tensors.items() if len(tensor.shape) > 1 and name not in TABLES]
        for number, name in enumerate(matrices):
            self.tensors[name] = stored_as(self.tensors[name], kinds[number % len(kinds)])


TABLES = ("embed.positions", "embed.types")


def stored_as(tensor: Tensor, kind: str) -> Tensor:
    """The tensor's values in another kind; random ones as large where nothing here can quantise to it."""
    if kind in SUPER_BLOCKS:
        stored = random_super_blocks(tensor, kind)
    elif kind == "f16":
        stored = tensor.numpy().astype(np.float16)
    elif kind == "bf16":
        stored = (tensor.numpy().view(np.uint32) >> 16).astype(np.uint16)
    else:
        stored = quants.quantize(tensor.numpy(), quants.GGMLQuantizationType[kind])
    return Tensor(tensor.name, tensor.shape, kind, lambda: stored)


def random_super_blocks(tensor: Tensor, kind: str) -> np.ndarray:
    """Every code and every scale occurs; values spread about zero as those of the tensor do."""
    rng = np.random.default_rng(tensor.shape[-1])
    stored = rng.integers(0, 256, (*tensor.shape[:-1], row_bytes(kind, tensor.shape[-1])), np.uint8)
    blocks = stored.reshape(-1, row_bytes(kind, 256))
    middle, places = {"Q4_K": (7.5, (0, 2)), "Q5_K": (15.5, (0, 2)), "Q6_K": (18.0, (208,))}[kind]
    factors = (1.0, middle) if kind != "Q6_K" else (1.0,)
    scale = tensor.shape[-1] ** -0.5 / (middle * (36 if kind != "Q6_K" else 74))
    for place, factor in zip(places, factors, strict=True):
        value = np.array([scale * factor], np.float16).view(np.uint8)
        blocks[:, place : place + 2] = value
    return stored
