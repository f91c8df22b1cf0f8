"""The veil as a transformation of weights: rules and keys in, tensors out, one at a time and in float64."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np

from headrace.model.tensor import Tensor
from headrace.privacy.veil.errors import SymmetryError
from headrace.privacy.veil.frames import CONDITION, Frames
from headrace.privacy.veil.keys import Master
from headrace.privacy.veil.planner import plan_veil
from headrace.privacy.veil.rules import Plan, Rule, Step
from headrace.spec.model import ModelSpec

PIECE = 2**22
"""Values of a table that are worked on at a time: 32 MiB in float64."""


class Veil:
    """`recipe` finds what can be keyed, `apply` keys it. `guarantee`: the same function up to rounding."""

    guarantee: Literal["equal"] = "equal"

    def __init__(self, spec: ModelSpec, master: Master, condition: float = CONDITION, plan: Plan | None = None) -> None:
        self.plan = plan or self.recipe(spec)
        self.frames = Frames(self.plan, master, condition)

    @staticmethod
    def recipe(spec: ModelSpec) -> Plan:
        """The largest exact veil. Raises SymmetryError (see `plan_veil`)."""
        return plan_veil(spec)

    def apply(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Canonical name -> veiled float32 tensor, computed when it is asked for.

        Raises SymmetryError for a tensor that the plan does not know, or lacks.
        """
        self.plan.check(tensors)

        def lazy(name: str) -> Tensor:
            def load() -> np.ndarray:
                return np.concatenate(list(self.pieces(name, tensors))).astype(np.float32)

            return Tensor(name, tensors[name].shape, "f32", load)

        return {name: lazy(name) for name in tensors}

    def pieces(self, name: str, tensors: Mapping[str, Tensor], expert: int | None = None) -> Iterator[np.ndarray]:
        """The veiled tensor in float64, cut along its first axis; no more than one piece is in memory.

        `expert`: only that one of a stacked tensor, without the axis of experts.
        """
        rule, source = self.plan.rules[name], tensors[name]
        if rule.along is None:
            yield self._changed(rule, source.numpy().astype(np.float64), tensors)
            return
        order = self.frames[rule.along].order
        if len(source.shape) == 3:
            for number in order.tolist() if expert is None else [int(order[expert])]:
                part = self._changed(rule, source.at(number).numpy().astype(np.float64), tensors, number)
                yield part[None] if expert is None else part
            return
        rows = max(1, PIECE // int(np.prod(source.shape[1:], dtype=np.int64)))
        for start in range(0, len(order), rows):
            part = _rows(source, order[start : start + rows])
            yield self._changed(rule, part.astype(np.float64), tensors)

    def _changed(
        self, rule: Rule, values: np.ndarray, tensors: Mapping[str, Tensor], expert: int | None = None
    ) -> np.ndarray:
        for step in rule.steps:
            values = self._step(step, values, tensors, expert)
        return values

    def _step(self, step: Step, values: np.ndarray, tensors: Mapping[str, Tensor], expert: int | None) -> np.ndarray:
        if step.kind == "one":
            return np.ones_like(values)
        if step.kind in ("push", "pull"):
            basis = self.frames[step.name.replace("*", str(expert))]
            return basis.push(values, step.axis) if step.kind == "push" else basis.pull(values, step.axis)
        return by_gain(step, values, tensors[step.name].numpy().astype(np.float64))


def by_gain(step: Step, values: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Values times a gain or over it, as the step says. Raises SymmetryError where that divides by 0."""
    if step.kind == "times":
        return values * gain
    if not gain.all():
        raise SymmetryError(
            f"{step.name} has a gain of 0, behind which its bias cannot be turned; veil a model without one."
        )
    return values / gain


def _rows(source: Tensor, index: np.ndarray) -> np.ndarray:
    """Rows of a table or values of a vector."""
    if len(source.shape) == 1:
        return source.numpy()[index]
    return source.take(index).numpy()
