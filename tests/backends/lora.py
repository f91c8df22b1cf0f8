"""Random adapters of random twins, the weights they would be merged into, and crowds that mix them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from backends.twins import draw, row
from headrace.model.adapter import product_shapes
from headrace.model.tensor import Tensor
from headrace.spec.adapter import Adapter, LowRank
from headrace.spec.batch import Row
from headrace.spec.executor import StepResult, WeightStore
from headrace.spec.model import ModelSpec
from headrace.spec.program import Operation

ALPHAS = (1.0, 1.0, -0.5)
"""Strengths that the rows of a crowd have by turns."""


def random_adapter(spec: ModelSpec, name: str = "one", seed: int = 1, rank: int = 3, only: str = "") -> Adapter:
    """Changes every product whose weight has `only` in its name, about as much as the weight itself."""
    rng = np.random.default_rng(seed)
    targets = {}
    for weight, (outputs, inputs) in product_shapes(spec).items():
        a = rng.standard_normal((rank, inputs)).astype(np.float32)
        b = rng.standard_normal((outputs, rank)).astype(np.float32)
        if only in weight:
            targets[weight] = LowRank(a, b, 0.3 / float(np.sqrt(rank * inputs)))
    return Adapter(name, targets)


class Merged:
    """A WeightStore whose matrices have an adapter added to them, as floats."""

    def __init__(self, inner: WeightStore, adapter: Adapter, strength: float = 1.0) -> None:
        self.inner, self.adapter, self.strength = inner, adapter, strength

    def lease(self, operations: Any) -> dict[str, Any]:
        return {name: self._merged(name, tensor) for name, tensor in self.inner.lease(operations).items()}

    def _merged(self, name: str, tensor: Tensor) -> Tensor:
        if (target := self.adapter.targets.get(name)) is None:
            return tensor
        added = self.strength * target.scale * (target.b.astype(np.float64) @ target.a)
        return Tensor.of(name, tensor.numpy() + added)

    def release(self, operations: list[Operation]) -> None:
        return None


def crowd(spec: ModelSpec, adapters: tuple[str | None, ...]) -> tuple[list[Row], list[Row]]:
    """Eight sequences, adapters by turns: what they have prefilled, then a decoded token or a chunk of 11 of each."""
    before, after = [], []
    for index in range(8):
        tokens, slots = draw(16 + 5 * index, index, spec.vocab), range(5 * index, 5 * index + 5)
        half = len(tokens) - (1 if index % 4 else 11)
        name = adapters[index % len(adapters)]
        how: dict[str, Any] = {"sequence": index, "adapter": name}
        if name is not None:
            how["adapter_scale"] = ALPHAS[index // len(adapters) % len(ALPHAS)]
        before.append(row(spec, tokens[:half], 0, slots, logits_from=None, **how))
        after.append(row(spec, tokens[half:], half, slots, reads=(1,), **how))
    return before, after


def check_crowd(together: StepResult, order: list[Row], alone: Mapping[int, StepResult]) -> None:
    """Every row of a step has the bits that it has alone."""
    at = 0
    for place, member in enumerate(order):
        wanted = alone[member.sequence]
        assert np.array_equal(together.logits[at : at + len(wanted.logits)], wanted.logits), member.sequence
        assert np.array_equal(together.hidden[place, 1], wanted.hidden[0, 1]), member.sequence
        at += len(wanted.logits)
