"""Walks a Program and finds the largest exact symmetry of each buffer, and from it the rule of each tensor.

Row vectors: y = x W^T. With x' = x S and y' = y T the weight becomes T^T W S^-T, which `push` on the outputs and
`pull` on the inputs do. What each operation allows:

    rms norm        O(d); its gain is folded into the weights that read it
    layer norm      orthogonal maps that keep the mean (the stabiliser of 1, and its negative)
    a gain that     is not read by weights alone (a norm on a block's output or on the residual sum): permutations,
                    with signs under rms norm
    q . k           GL of each key head; with rotary positions a turn and a factor a plane, and GL of what does not
                    rotate; under a query and key norm one sign a plane (two planes cannot be told apart by a norm
                    that has one gain a value)
    v, o            GL of each key head
    heads           any order of key heads, and of the queries of each
    activation      any order of units; factors on the ungated side, positive ones through relu
    experts         any order
    ids, logits     any order
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from headrace.model.tensor import Tensor
from headrace.privacy.veil.errors import SymmetryError
from headrace.privacy.veil.rules import Group, Heads, Plan, Rule, Step, Stream, Units, choose
from headrace.spec.model import ModelSpec
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
    compile_program,
)

STREAM, TOKENS = "stream", "tokens"
_LINEAR = (Matmul, Route, Expert, Head)


def untied(spec: ModelSpec, weights: Mapping[str, Tensor]) -> tuple[ModelSpec, dict[str, Tensor]]:
    """The same model with a head of its own, as the embedding and the head need different keys."""
    if not (spec.tied and spec.causal):
        return spec, dict(weights)
    return replace(spec, tied=False), {**weights, "head.weight": weights["embed.weight"].renamed("head.weight")}


def plan_veil(spec: ModelSpec, asked: Mapping[str, Group] | None = None) -> Plan:
    """The largest exact veil of a model, or the groups `asked` for ("stream", "qk", "vo", "units", "tokens", ...).

    Raises SymmetryError for an operation nobody can transform, for a group that does not hold, and for a model whose
    head is tied to its embedding (see `untied`).
    """
    return Walk(compile_program(spec), dict(asked or {})).plan()


class Walk:
    """One pass over a program. `frames`: what each buffer is keyed by as the walk stands."""

    def __init__(self, program: Program, asked: dict[str, Group]) -> None:
        self.program, self.spec, self.asked = program, program.spec, asked
        self.frames: dict[str, str] = {}
        self.folds: dict[str, str] = {}
        self.rules: dict[str, Rule] = {}
        self.kinds: set[str] = set()
        self.heads: dict[int, Heads] = {}
        self.units: dict[int, Units] = {}

    def plan(self) -> Plan:
        for index, operation in enumerate(self.program.operations):
            visit = _VISITS.get(type(operation))
            if visit is None:
                raise SymmetryError(f"No symmetry is known for {type(operation).__name__}; veil another model.")
            visit(self, operation, index)
        unknown = self.asked.keys() - {STREAM, TOKENS, "heads", "qk", "vo", "units", "experts"}
        if unknown:
            raise SymmetryError(f"Nothing here is called {sorted(unknown)[0]!r}; ask for stream, qk, vo or units.")
        stream = Stream(choose("The residual stream", self._stream_group(), self.asked.get(STREAM)), self.spec.hidden)
        tokens = choose("The vocabulary", "permutation", self.asked.get(TOKENS))
        return Plan(self.spec.vocab, stream, self.heads, self.units, self.rules, tokens)

    def _stream_group(self) -> Group:
        if "gain" in self.kinds:
            return "signed_one" if "layer" in self.kinds else "signed"
        return "orthogonal_one" if "layer" in self.kinds else "orthogonal"

    # -- operations --------------------------------------------------------------------------------

    def embed(self, op: Embed, index: int) -> None:
        self._add(op.table, Step("push", 1, STREAM), along=TOKENS)
        for table in (op.positions, op.types):
            if table is not None:
                self._add(table, Step("push", 1, STREAM))
        self.frames[op.out] = STREAM

    def normalize(self, op: Normalize, index: int) -> None:
        frame = self._frame(op.x)
        if frame != STREAM:
            self._head_norm(op, frame)
            return
        self.kinds.add(op.norm.kind)
        self.frames[op.out] = STREAM
        self.folds.pop(op.out, None)
        if self._only_weights_read(op.out, index):
            self.folds[op.out] = op.gain
            self._add(op.gain, Step("one"))
            if op.bias is not None:
                self._add(op.bias, Step("over", 0, op.gain), Step("push", 0, STREAM))
            return
        # T = diag(gain)^-1 Q diag(gain') stays orthogonal only where Q moves whole values.
        self.kinds.add("gain")
        self._add(op.gain, Step("push", 0, f"{STREAM}.order"))
        if op.bias is not None:
            self._add(op.bias, Step("push", 0, STREAM))

    def _head_norm(self, op: Normalize, frame: str) -> None:
        """A norm on queries or keys: only signs and the order of heads pass, and its gain can take factors."""
        if op.norm.kind != "rms" or op.bias is not None:
            raise SymmetryError(f"No symmetry is known for {op.gain}, which is no rms norm; veil another model.")
        self._add(op.gain, Step("push", 0, f"{frame}_gain"))

    def matmul(self, op: Matmul, index: int) -> None:
        frame = self._destiny(op, index)
        self._add(op.weight, *self._reads(op.x, 1), Step("push", 0, frame))
        if op.bias is not None:
            self._add(op.bias, Step("push", 0, frame))
        self.frames[op.out] = frame
        self.folds.pop(op.out, None)

    def rotate(self, op: Rotate, index: int) -> None:
        if not self._frame(op.x).endswith((".q", ".k")):
            raise SymmetryError(f"Rotary positions on {op.x} are unknown; veil a model that has them on q and k.")

    def attend(self, op: Attend, index: int) -> None:
        att, rotated = op.attention, op.attention.rope.dim if op.attention.rope else 0
        largest: Group = "general" if not rotated else "planes"
        where = f"Layer {op.layer}"
        self.heads[op.layer] = Heads(
            att.kv_heads, att.heads // att.kv_heads, att.head_dim, rotated,
            choose(f"{where}: q and k", "signs" if att.qk_norm != "none" else largest, self.asked.get("qk")),
            choose(f"{where}: v and o", "general", self.asked.get("vo")),
            choose(f"{where}: the heads", "permutation", self.asked.get("heads")),
            att.qk_norm,
        )  # fmt: skip
        self.frames[op.out] = f"layers.{op.layer}.a"

    def activate(self, op: Activate, index: int) -> None:
        base = self._frame(op.gate).rpartition(".")[0]
        gated, relu = op.up is not None, op.activation == "relu"
        layer = int(base.split(".")[1])
        width = self.spec.layers[layer].mlp.width
        self._units(layer, width, gated, relu)
        self.frames[op.out] = f"{base}.m"

    def _units(self, layer: int, width: int, gated: bool, relu: bool, experts: int = 0) -> None:
        where = f"Layer {layer}: the units"
        group = choose(where, "scaled" if gated or relu else "permutation", self.asked.get("units"))
        order = choose(f"Layer {layer}: the experts", "permutation", self.asked.get("experts"))
        self.units[layer] = Units(width, group, relu and group == "scaled", gated, experts, order)

    def route(self, op: Route, index: int) -> None:
        base = op.weight.rsplit(".", 2)[0]
        self._add(op.weight, *self._reads(op.x, 1), along=f"{base}.experts")
        self.frames[op.out] = f"{base}.experts"

    def expert(self, op: Expert, index: int) -> None:
        experts = self._frame(op.routes)
        base, mlp = experts.rpartition(".")[0], op.mlp
        self._units(int(base.split(".")[1]), mlp.width, mlp.gated, mlp.activation == "relu", mlp.experts)
        for tensor, frame in ((op.gate, "gate"), (op.up, "up")):
            self._add(tensor, *self._reads(op.x, 1), Step("push", 0, f"{base}.*.{frame}"), along=experts)
        self._add(op.down, Step("pull", 1, f"{base}.*.m"), Step("push", 0, STREAM), along=experts)
        self.frames[op.out] = STREAM
        self.folds.pop(op.out, None)

    def add(self, op: Add, index: int) -> None:
        if not self._frame(op.x) == self._frame(op.y) == STREAM:
            raise SymmetryError(f"{op.x} + {op.y} joins two keyed bases; veil a model without that sum.")
        self.frames[op.out] = STREAM
        self.folds.pop(op.out, None)

    def keep(self, op: Keep, index: int) -> None:
        self._frame(op.x)

    def head(self, op: Head, index: int) -> None:
        self._add(op.weight, *self._reads(op.x, 1), along=TOKENS)
        if op.bias is not None:
            self._add(op.bias, along=TOKENS)
        self.frames[op.out] = TOKENS

    # -- what the operations share -----------------------------------------------------------------

    def _frame(self, buffer: str) -> str:
        if buffer not in self.frames:
            raise SymmetryError(f"The buffer {buffer} is read before it is written; veil a model of a known family.")
        return self.frames[buffer]

    def _reads(self, buffer: str, axis: int) -> list[Step]:
        """Steps on the inputs of a weight that reads `buffer`: its norm's gain, then its frame."""
        gain = self.folds.get(buffer)
        folded = [] if gain is None else [Step("times", axis, gain)]
        return [*folded, Step("pull", axis, self._frame(buffer))]

    def _destiny(self, op: Matmul, index: int) -> str:
        """The frame of a product's output: that of the operation it is made for."""
        for later in self.program.operations[index + 1 :]:
            if isinstance(later, Attend) and op.out in (later.q, later.k, later.v):
                return f"layers.{later.layer}.{'qkv'[(later.q, later.k, later.v).index(op.out)]}"
            if isinstance(later, Activate) and op.out in (later.gate, later.up):
                base = op.weight.rsplit(".", 2)[0]
                return f"{base}.{'gate' if op.out == later.gate else 'up'}"
            if isinstance(later, Add) and op.out in (later.x, later.y):
                return STREAM
        raise SymmetryError(f"What {op.weight} computes is never read; veil a model of a supported family.")

    def _only_weights_read(self, buffer: str, index: int) -> bool:
        """Whether everything that reads what operation `index` wrote is linear, so that its gain can be folded."""
        read = False
        for later in self.program.operations[index + 1 :]:
            if isinstance(later, Keep):
                continue
            if buffer in _inputs(later):
                if not isinstance(later, _LINEAR):
                    return False
                read = True
            if getattr(later, "out", None) == buffer:
                break
        return read

    def _add(self, tensor: str, *steps: Step, along: str | None = None) -> None:
        rule = Rule(tensor, steps, along)
        if self.rules.setdefault(tensor, rule) != rule:
            raise SymmetryError(
                f"{tensor} is read in two keyed bases, as a head tied to its embedding is; give each its own tensor."
            )


def _inputs(operation: Operation) -> tuple[str, ...]:
    if isinstance(operation, Expert):
        return operation.x, operation.routes
    names = ("x", "y", "q", "k", "v", "gate", "up")
    return tuple(value for name in names if (value := getattr(operation, name, None)) is not None)


_VISITS: dict[type, Callable[[Walk, Any, int], None]] = {
    Embed: Walk.embed,
    Normalize: Walk.normalize,
    Matmul: Walk.matmul,
    Rotate: Walk.rotate,
    Attend: Walk.attend,
    Activate: Walk.activate,
    Route: Walk.route,
    Expert: Walk.expert,
    Add: Walk.add,
    Keep: Walk.keep,
    Head: Walk.head,
}
