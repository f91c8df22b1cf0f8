"""A Program handed to the C++ engine, with operations joined where nothing is asked for between them.

Joined are a norm with the products that read it, products of one input, a gate with its activation,
a product with the addition to the residual, and per-head norms and rotation with the attention that
follows. A joined operation computes what its parts would have computed, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace.backends.native.cache import NativeWeights, WeightPlan
from headrace.backends.rotary import rope_table
from headrace.spec.model import Rope
from headrace.spec.program import (
    Activate,
    Add,
    Attend,
    Embed,
    Expert,
    Head,
    Keep,
    Matmul,
    Normalize,
    Operation,
    Program,
    Rotate,
    Route,
)

CODE_FORMATS = ("codes4", "codes5", "codes6", "codes8")
FORMATS = (*CODE_FORMATS, "bf16", "f16", "f32")
CODED_TOGETHER = 32  # activations that share a scale
ACTIVATIONS = ("none", "silu", "gelu", "gelu_tanh", "relu")
SEPARATE, ACTIVATED, ADDED = range(3)
# A head's error goes straight into the logits: with int8 there it is a third of the whole divergence from fp32.
HEAD_PLANES = 2


class Builder:
    """Adds a program's operations to a native model, from the layouts of its weights; `fill` brings their values.

    `model`: a `_kernels.Model`. `planes`: int8 planes of the activations that meet quantised weights.
    `positions`: rows of the rotary tables. `ends[i]`: how many operations of the program are done after native
    operation i; `kinds[i]`: what it is in a profile.
    """

    def __init__(
        self,
        model: Any,
        program: Program,
        plan: WeightPlan,
        planes: int,
        positions: int,
    ) -> None:
        self.ends: list[int] = []
        self.kinds: list[str] = []
        self._model, self._program, self._planes, self._positions = model, program, planes, positions
        self._layouts, self._vectors = plan.layouts, plan.vectors
        self._numbers = {name: index for index, name in enumerate(buffer_widths(program))}
        self._weights: dict[str, list[int]] = {}
        self._tables: dict[Rope, tuple[np.ndarray, np.ndarray]] = {}
        self._coded: str | None = None

    def build(self) -> None:
        at, operations = 0, self._program.operations
        while at < len(operations):
            used = self._add(operations, at)
            self.kinds.append(_kind(operations[at : at + used]))
            at += used
            self.ends.append(at)

    def fill(self, weights: NativeWeights) -> None:
        """Gives the model its matrices and computes the rotary tables; nothing before reads or writes either."""
        for name, numbers in self._weights.items():
            for number, matrix in zip(numbers, weights.matrices[name], strict=True):
                self._model.fill_weight(number, matrix.data)
        for rope, tables in self._tables.items():
            for table, values in zip(tables, rope_table(rope, self._positions), strict=True):
                table[:] = values

    def products(self) -> dict[str, int]:
        """The native number of each product's weight."""
        return {op.weight: self._weight(op.weight)[0] for op in self._program.operations if isinstance(op, Matmul)}

    def _add(self, ops: Sequence[Operation], at: int) -> int:
        """Adds one native operation; returns how many of the program's it does."""
        op = ops[at]
        if isinstance(op, Normalize):
            products = _products(ops, at + 1)
            if products and op.parts == 1 and op.out != op.x and products[0].x == op.out:
                return 1 + self._linear(ops, at + 1, products, op)
            if self._before_attend(ops, at):
                return self._attend(ops, at)
            self._model.add_normalise(self._numbers[op.x], self._numbers[op.out], self._norm(op))
            return 1
        if isinstance(op, Matmul):
            return self._linear(ops, at, _products(ops, at), None)
        if isinstance(op, Rotate | Attend):
            return self._attend(ops, at)
        self._single(op)
        return 1

    def _single(self, op: Operation) -> None:
        model, number = self._model, self._numbers
        if isinstance(op, Embed):
            types = self._vectors[op.types][0] if op.types else None
            positions = self._vectors[op.positions].reshape(-1) if op.positions else None
            model.add_embed(number[op.out], self._weight(op.table)[0], op.scale, positions, types)
        elif isinstance(op, Add):
            model.add_add(number[op.x], number[op.y], number[op.out])
        elif isinstance(op, Route):
            weight = self._weight(op.weight)[0]
            mlp = op.mlp
            model.add_route(number[op.x], number[op.out], weight, mlp.experts, mlp.top_k, mlp.renormalise)
        elif isinstance(op, Expert):
            self._experts(op)
        elif isinstance(op, Keep):
            model.add_keep(number[op.x])
        elif isinstance(op, Head):
            bias = self._vectors[op.bias] if op.bias else None
            weight = self._weight(op.weight)[0]
            model.add_head(number[op.x], HEAD_PLANES, weight, bias, op.scale, op.softcap or 0.0)
        else:
            raise TypeError(f"an operation of kind {type(op).__name__} stands alone")

    def _linear(self, ops: Sequence[Operation], at: int, products: list[Matmul], norm: Normalize | None) -> int:
        """The products from `at` on, and the activation or addition behind them."""
        number, used = self._numbers, len(products)
        after = ops[at + used] if at + used < len(ops) else None
        join, activation, out = SEPARATE, "none", number[products[0].out]
        outs = [product.out for product in products]
        if isinstance(after, Activate) and outs == [name for name in (after.gate, after.up) if name is not None]:
            join, activation, out, used = ACTIVATED, after.activation, number[after.out], used + 1
        elif isinstance(after, Add) and outs == [after.y] and after.x == after.out:
            join, out, used = ADDED, number[after.out], used + 1
        listed = [
            (self._weight(p.weight)[0], self._vectors[p.bias] if p.bias else None, number[p.out]) for p in products
        ]
        x = number[norm.x if norm else products[0].x]
        given = self._norm(norm) if norm else None
        coded, self._coded = products[0].x == self._coded, None
        planes = 0
        if isinstance(after, Activate) and join == ACTIVATED and not coded:
            planes = self._code(ops, at + used, after.out, 1)
        code = ACTIVATIONS.index(activation)
        self._model.add_linear(x, self._planes, given, listed, join, code, out, coded, planes)
        return used

    def _code(self, ops: Sequence[Operation], at: int, out: str, parts: int) -> int:
        """Planes of the codes that the operation writing `out`, in equal parts, leaves for the next one; 0: none."""
        products = _products(ops, at)
        if not products or products[0].x != out or self._program.widths[out] // parts % CODED_TOGETHER:
            return 0
        width = self._program.widths[out]  # of the widest layer
        layouts = [layout for p in products for layout in self._layouts[p.weight]]
        if any(layout.format not in CODE_FORMATS or layout.inputs != width for layout in layouts):
            return 0
        self._coded = out
        return self._planes

    def _before_attend(self, ops: Sequence[Operation], at: int) -> bool:
        op = ops[at]
        assert isinstance(op, Normalize)
        following = next((other for other in ops[at:] if isinstance(other, Attend)), None)
        return following is not None and op.x == op.out and op.x in (following.q, following.k)

    def _attend(self, ops: Sequence[Operation], at: int) -> int:
        norms: dict[str, Any] = {}
        rope, used = None, 0
        while not isinstance(op := ops[at + used], Attend):
            if isinstance(op, Normalize):
                norms[op.x] = self._norm(op)
            else:
                assert isinstance(op, Rotate)
                rope = self._table(op.rope)
            used += 1
        a, number = op.attention, self._numbers
        buffers = [number[name] for name in (op.q, op.k, op.v, op.out)]
        shape = [a.heads, a.kv_heads, a.head_dim, a.window or 0, int(a.causal)]
        used += 1
        planes = self._code(ops, at + used, op.out, a.kv_heads)
        joined = (norms.get(op.q), norms.get(op.k), rope, planes)
        self._model.add_attend(buffers, op.layer, op.group, shape, a.scale, a.softcap or 0.0, *joined)
        return used

    def _experts(self, op: Expert) -> None:
        number, mlp = self._numbers, op.mlp
        up = self._weight(op.up) if mlp.gated else []
        parts = (self._weight(op.gate), up, self._weight(op.down))
        activation = ACTIVATIONS.index(mlp.activation)
        buffers = (number[op.routes], number[op.out])
        self._model.add_experts(number[op.x], self._planes, *buffers, mlp.top_k, mlp.width, *parts, activation)

    def _norm(self, op: Normalize) -> tuple[int, int, float, bool, np.ndarray, np.ndarray | None]:
        gain = self._vectors[op.gain]
        bias = self._vectors[op.bias] if op.bias else None
        return (len(gain) * op.parts, op.parts, op.norm.eps, op.norm.kind == "layer", gain, bias)

    def _table(self, rope: Rope) -> tuple[np.ndarray, np.ndarray]:
        if rope not in self._tables:
            shape = (self._positions, rope.dim // 2)
            self._tables[rope] = (np.empty(shape, np.float32), np.empty(shape, np.float32))
        return self._tables[rope]

    def _weight(self, name: str) -> list[int]:
        if name not in self._weights:
            self._weights[name] = [
                self._model.add_weight(
                    FORMATS.index(w.format),
                    w.outputs,
                    w.inputs,
                    w.group,
                    w.offset,
                    w.affine,
                    w.wide,
                    w.panel_bytes,
                )
                for w in self._layouts[name]
            ]
        return self._weights[name]


def buffer_widths(program: Program) -> dict[str, int]:
    """Floats a token of each buffer that the native model keeps; logits have an array of their own."""
    return {name: width for name, width in program.widths.items() if name != "logits"}


def _kind(ops: Sequence[Operation]) -> str:
    """The name of a joined operation in a profile."""
    if any(isinstance(op, Attend) for op in ops):
        return "attention"
    product = next((op for op in ops if isinstance(op, Matmul)), None)
    if product is not None:
        return "attention products" if ".attn." in product.weight else "mlp products"
    return {Embed: "embedding", Head: "head", Expert: "experts", Route: "router"}.get(type(ops[0]), "norms and sums")


def _products(ops: Sequence[Operation], at: int) -> list[Matmul]:
    """The products of one input that stand together from `at` on."""
    found: list[Matmul] = []
    for op in ops[at:]:
        if not isinstance(op, Matmul) or (found and op.x != found[0].x):
            break
        found.append(op)
    return found
