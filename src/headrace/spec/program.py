"""A ModelSpec compiled to a flat list of operations over named buffers.

Backends run it, the planner prices it, transforms walk it. Every buffer holds one row a token;
`Program.widths` gives the values in a row. Operations work on each row alone, but for `Attend`
(reads the sequence's pages) and `Keep` (drops the rows whose output nobody asked for).

Canonical weights:
    embed.weight [vocab, hidden]   embed.positions   embed.types   embed.norm.{weight,bias}
    layers.N.attn.{q,k,v,o}.{weight,bias}    layers.N.attn.{q_norm,k_norm}.weight
    layers.N.{attn_norm,attn_post_norm,mlp_norm,mlp_post_norm}.{weight,bias}
    layers.N.mlp.{gate,up,down}.{weight,bias}
    layers.N.mlp.router.weight [experts, hidden]   layers.N.mlp.experts.{gate,up,down} [expert, out, in]
    norm.{weight,bias}   head.{weight,bias}   (tied models have no head.weight)
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeAlias

from headrace.spec.model import Attention, Layer, Mlp, ModelSpec, Norm, Rope


@dataclass(frozen=True, slots=True)
class Embed:
    """out = scale * table[token] (+ positions[position]) (+ types[0])."""

    out: str
    table: str
    scale: float = 1.0
    positions: str | None = None
    types: str | None = None


@dataclass(frozen=True, slots=True)
class Normalize:
    """Norm over each of `parts` equal parts of a row with one gain for all; parts > 1 is a per-head norm."""

    x: str
    out: str
    gain: str
    bias: str | None
    norm: Norm
    parts: int = 1


@dataclass(frozen=True, slots=True)
class Matmul:
    """out = x @ weight.T (+ bias)."""

    x: str
    out: str
    weight: str
    bias: str | None = None


@dataclass(frozen=True, slots=True)
class Rotate:
    """Rotary embedding of every head of x, in place."""

    x: str
    heads: int
    rope: Rope


@dataclass(frozen=True, slots=True)
class Attend:
    """Writes k, v to the pages of `layer` (slot `slot` of state group `group`), then attends."""

    q: str
    k: str
    v: str
    out: str
    layer: int
    group: int
    slot: int
    attention: Attention


@dataclass(frozen=True, slots=True)
class Activate:
    """out = activation(gate) (* up)."""

    gate: str
    up: str | None
    out: str
    activation: str


@dataclass(frozen=True, slots=True)
class Route:
    """out = for each row the top-k (expert, weight) pairs, by router logits x @ weight.T."""

    x: str
    out: str
    weight: str
    mlp: Mlp


@dataclass(frozen=True, slots=True)
class Expert:
    """out = sum over the routed experts, in rank order, of weight * mlp_expert(x)."""

    x: str
    routes: str
    out: str
    gate: str
    up: str
    down: str
    mlp: Mlp


@dataclass(frozen=True, slots=True)
class Add:
    x: str
    y: str
    out: str


@dataclass(frozen=True, slots=True)
class Keep:
    """Keeps the rows of x whose logits are asked for; the operations after it see only those."""

    x: str


@dataclass(frozen=True, slots=True)
class Head:
    """Logits: softcap(scale * (x @ weight.T + bias))."""

    x: str
    out: str
    weight: str
    bias: str | None
    scale: float = 1.0
    softcap: float | None = None


Operation: TypeAlias = Embed | Normalize | Matmul | Rotate | Attend | Activate | Route | Expert | Add | Keep | Head

_WEIGHT_FIELDS = {"table", "positions", "types", "gain", "bias", "weight"}


def weight_names(operation: Operation) -> tuple[str, ...]:
    """Canonical names of the weights that an operation reads."""
    wanted = _WEIGHT_FIELDS | ({"gate", "up", "down"} if isinstance(operation, Expert) else set())
    found = (getattr(operation, f.name) for f in fields(operation) if f.name in wanted)
    return tuple(name for name in found if name is not None)


@dataclass(frozen=True, slots=True)
class Program:
    """Operations in order, buffer widths, and where each hidden state can be read.

    `hidden_after[i]` is the number of operations after which buffer "x" holds hidden state i:
    0 is the embedding's output, i the output of layer i - 1, and the last one stands after the
    final norm.
    """

    spec: ModelSpec
    operations: tuple[Operation, ...]
    widths: dict[str, int]
    hidden_after: tuple[int, ...]


def compile_program(spec: ModelSpec) -> Program:
    """The operations of a model, in the order every backend runs them."""
    ops: list[Operation] = [
        Embed(
            "x",
            "embed.weight",
            spec.embed_scale,
            "embed.positions" if spec.learned_positions else None,
            "embed.types" if spec.token_types else None,
        )
    ]
    if spec.embed_norm:
        ops.append(_normalize("x", "x", "embed.norm", spec.embed_norm))
    hidden_after = [len(ops)]
    place = {
        layer: (group, slot)
        for group, state in enumerate(spec.state_groups())
        for slot, layer in enumerate(state.layers)
    }
    for index, layer in enumerate(spec.layers):
        ops += _attention_block(index, layer, *place[index])
        ops += _mlp_block(index, layer)
        hidden_after.append(len(ops))
    if spec.final_norm:
        ops.append(_normalize("x", "x", "norm", spec.final_norm))
        hidden_after[-1] = len(ops)
    if spec.causal:
        table = "embed.weight" if spec.tied else "head.weight"
        bias = "head.bias" if spec.head_bias else None
        ops += [Keep("x"), Head("x", "logits", table, bias, spec.logit_scale, spec.logit_softcap)]
    return Program(spec, tuple(ops), _widths(spec), tuple(hidden_after))


def _normalize(x: str, out: str, name: str, norm: Norm, parts: int = 1) -> Normalize:
    return Normalize(x, out, f"{name}.weight", f"{name}.bias" if norm.bias else None, norm, parts)


def _attention_block(index: int, layer: Layer, group: int, slot: int) -> list[Operation]:
    base, att = f"layers.{index}.attn", layer.attention
    before = layer.norms in ("before", "both")
    source = "h" if before else "x"
    ops: list[Operation] = [_normalize("x", "h", f"{base}_norm", layer.norm)] if before else []
    for part in "qkv":
        bias = f"{base}.{part}.bias" if att.qkv_bias else None
        ops.append(Matmul(source, part, f"{base}.{part}.weight", bias))
    for part, heads in (("q", att.heads), ("k", att.kv_heads)):
        if att.qk_norm != "none":
            parts = heads if att.qk_norm == "head" else 1
            ops.append(_normalize(part, part, f"{base}.{part}_norm", Norm("rms", att.qk_norm_eps), parts))
        if att.rope:
            ops.append(Rotate(part, heads, att.rope))
    ops.append(Attend("q", "k", "v", "a", index, group, slot, att))
    ops.append(Matmul("a", "o", f"{base}.o.weight", f"{base}.o.bias" if att.out_bias else None))
    return ops + _join("o", f"{base}", layer)


def _mlp_block(index: int, layer: Layer) -> list[Operation]:
    base, mlp = f"layers.{index}.mlp", layer.mlp
    before = layer.norms in ("before", "both")
    source = "h" if before else "x"
    ops: list[Operation] = [_normalize("x", "h", f"{base}_norm", layer.norm)] if before else []
    if mlp.experts:
        gate, up, down = (f"{base}.experts.{part}" for part in ("gate", "up", "down"))
        ops.append(Route(source, "routes", f"{base}.router.weight", mlp))
        ops.append(Expert(source, "routes", "o", gate, up, down, mlp))
        return ops + _join("o", base, layer)

    def matmul(x: str, part: str, out: str) -> Matmul:
        return Matmul(x, out, f"{base}.{part}.weight", f"{base}.{part}.bias" if mlp.bias else None)

    if mlp.gated:
        ops += [matmul(source, "gate", "gate"), matmul(source, "up", "up")]
        ops.append(Activate("gate", "up", "m", mlp.activation))
    else:
        ops += [matmul(source, "up", "up"), Activate("up", None, "m", mlp.activation)]
    ops.append(matmul("m", "down", "o"))
    return ops + _join("o", base, layer)


def _join(out: str, base: str, layer: Layer) -> list[Operation]:
    """Adds a block's output to the residual, with the norms that stand after it."""
    ops: list[Operation] = []
    if layer.norms in ("after", "both"):
        ops.append(_normalize(out, out, f"{base}_post_norm", layer.norm))
    ops.append(Add("x", out, "x"))
    if layer.norms == "on_residual":
        ops.append(_normalize("x", "x", f"{base}_post_norm", layer.norm))
    return ops


def _widths(spec: ModelSpec) -> dict[str, int]:
    widths = {"x": spec.hidden, "h": spec.hidden, "o": spec.hidden}
    for layer in spec.layers:
        att, mlp = layer.attention, layer.mlp
        sizes = {"q": att.heads * att.head_dim, "k": att.kv_heads * att.head_dim}
        sizes |= {"v": sizes["k"], "a": sizes["q"]}
        if mlp.experts:
            sizes["routes"] = 2 * mlp.top_k
        else:
            sizes |= {"up": mlp.width, "m": mlp.width} | ({"gate": mlp.width} if mlp.gated else {})
        for name, width in sizes.items():
            widths[name] = max(widths.get(name, 0), width)
    if spec.causal:
        widths["logits"] = spec.vocab
    return widths


__all__ = [
    "Activate",
    "Add",
    "Attend",
    "Embed",
    "Expert",
    "Head",
    "Keep",
    "Layer",
    "Matmul",
    "Normalize",
    "Operation",
    "Program",
    "Rotate",
    "Route",
    "compile_program",
    "weight_names",
]
