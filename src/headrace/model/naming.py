"""From a file's tensor names and layouts to the canonical ones of `spec.program`.

A table maps a canonical stem (`layers.N.attn.q`) to the file's stem, alone or with steps that bring the
tensor to its canonical form: `("blk.N.attn_q", unrotate("q"))`. `.weight` and `.bias` are carried over;
names without such an ending (`embed.positions`) are matched whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from headrace.model.tensor import Tensor, stack
from headrace.spec.errors import ModelFileError
from headrace.spec.model import ModelSpec
from headrace.spec.program import compile_program, weight_names

_LAYER = re.compile(r"(?<=^layers\.)\d+(?=\.)")


@dataclass(slots=True)
class Source:
    """The file's tensors while one canonical weight is looked for."""

    tensors: Mapping[str, Tensor]
    spec: ModelSpec
    layer: int = 0
    suffix: str = ""
    used: set[str] = field(default_factory=set)

    def has(self, stem: str) -> bool:
        return self.name(stem) in self.tensors

    def name(self, stem: str) -> str:
        return stem.replace(".N.", f".{self.layer}.") + self.suffix

    def get(self, stem: str) -> Tensor:
        name = self.name(stem)
        if name not in self.tensors:
            raise KeyError(name)
        self.used.add(name)
        return self.tensors[name]


Step: TypeAlias = Callable[[Tensor, Source], Tensor]
Finder: TypeAlias = Callable[[Source], Tensor]
Rule: TypeAlias = "str | tuple[str | Step, ...] | Finder"
Names: TypeAlias = dict[str, Rule]


def shift(tensor: Tensor, source: Source) -> Tensor:
    """A norm gain stored as gain - 1."""
    return tensor.shift(1.0)


def conv1d(tensor: Tensor, source: Source) -> Tensor:
    """A matrix stored [in, out]; a bias stays."""
    return tensor.transpose() if len(tensor.shape) == 2 else tensor


def qkv(part: str) -> Step:
    """One of the three projections that are fused in this order: q, k, v."""

    def cut(tensor: Tensor, source: Source) -> Tensor:
        attention = source.spec.layers[source.layer].attention
        q, kv = attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim
        start, size = {"q": (0, q), "k": (q, kv), "v": (q + kv, kv)}[part]
        return tensor.rows(start, start + size)

    return cut


def half(which: int) -> Step:
    """The first or second half of the rows: gate and up fused."""

    def cut(tensor: Tensor, source: Source) -> Tensor:
        size = tensor.shape[0] // 2
        return tensor.rows(which * size, (which + 1) * size)

    return cut


def unrotate(part: str) -> Step:
    """Rows of query or key heads that rotate neighbours (2i, 2i + 1) -> heads that rotate halves."""

    def reorder(tensor: Tensor, source: Source) -> Tensor:
        attention = source.spec.layers[source.layer].attention
        heads = attention.heads if part == "q" else attention.kv_heads
        dim = attention.rope.dim if attention.rope else 0
        within = np.concatenate([np.arange(0, dim, 2), np.arange(1, dim, 2), np.arange(dim, attention.head_dim)])
        index = (np.arange(heads)[:, None] * attention.head_dim + within).ravel()
        return tensor.take(index)

    return reorder


def experts(stem: str, stacked: str | None = None) -> Finder:
    """[expert, out, in] from one tensor an expert (`{E}` in the name), or from a stacked one where it exists."""

    def find(source: Source) -> Tensor:
        if stacked is not None and source.has(stacked):
            return source.get(stacked)
        count = source.spec.layers[source.layer].mlp.experts
        return stack(stem, [source.get(stem.replace("{E}", str(expert))) for expert in range(count)])

    return find


def canonical(
    spec: ModelSpec, names: Names, tensors: Mapping[str, Tensor], ignored: str, where: str
) -> dict[str, Tensor]:
    """Every weight that the model's program reads, by canonical name.

    Raises ModelFileError naming tensors that are missing, of a wrong shape, or left over and not
    matched by the pattern `ignored`.
    """
    shapes = weight_shapes(spec)
    source = Source(tensors, spec)
    weights: dict[str, Tensor] = {}
    missing: list[str] = []
    for name in shapes:
        try:
            weights[name] = _find(name, names, source).renamed(name)
        except KeyError as error:
            missing.append(error.args[0])
    if missing:
        raise ModelFileError(f"{where} lacks {_list(missing)}; download or convert the model again.")
    surplus = [name for name in tensors if name not in source.used and not re.search(ignored, name)]
    if surplus:
        raise ModelFileError(f"{where} has tensors this family does not know: {_list(surplus)}; choose another model.")
    for name, shape in shapes.items():
        if weights[name].shape != shape:
            raise ModelFileError(
                f"{where}: {name} is {list(weights[name].shape)} where the settings say {list(shape)};"
                " download or convert the model again."
            )
    return weights


def module_of(spec: ModelSpec, names: Names, weight: str) -> tuple[str, Callable[[Tensor], Tensor]]:
    """Of a product's weight: the file's module, and what takes the weight's own outputs from the module's.

    The second maps a tensor whose rows are the module's outputs, in the file's order, to the canonical ones.
    """
    source = Source({}, spec)
    rule = _rule(weight, names, source)
    assert not callable(rule), "a product's weight is one tensor, or a part of one"
    first, *steps = (rule,) if isinstance(rule, str) else rule
    assert isinstance(first, str)

    def outputs(rows: Tensor) -> Tensor:
        for step in steps:
            assert callable(step)
            rows = rows if step is conv1d else step(rows, source)
        return rows

    return source.name(first).removesuffix(".weight"), outputs


def _find(name: str, names: Names, source: Source) -> Tensor:
    rule = _rule(name, names, source)
    if callable(rule):
        return rule(source)
    first, *steps = (rule,) if isinstance(rule, str) else rule
    assert isinstance(first, str)
    tensor = source.get(first)
    for step in steps:
        assert callable(step)
        tensor = step(tensor, source)
    return tensor


def _rule(name: str, names: Names, source: Source) -> Rule:
    """The rule of a canonical name, whose layer and ending `source` takes over. Raises KeyError."""
    found = _LAYER.search(name)
    source.layer = int(found.group()) if found else 0
    template = _LAYER.sub("N", name, count=1)
    if template in names:
        source.suffix = ""
        return names[template]
    stem, _, ending = template.rpartition(".")
    if stem not in names:
        raise KeyError(name)
    source.suffix = f".{ending}"
    return names[stem]


def _list(names: list[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def weight_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Canonical name -> shape of every weight that the program reads."""
    needed = dict.fromkeys(name for op in compile_program(spec).operations for name in weight_names(op))
    return {name: _shape(spec, name) for name in needed}


def _shape(spec: ModelSpec, name: str) -> tuple[int, ...]:
    found = _LAYER.search(name)
    if not found:
        return {
            "embed.weight": (spec.vocab, spec.hidden),
            "head.weight": (spec.vocab, spec.hidden),
            "head.bias": (spec.vocab,),
            "embed.positions": (spec.learned_positions, spec.hidden),
            "embed.types": (spec.token_types, spec.hidden),
        }.get(name, (spec.hidden,))
    layer = spec.layers[int(found.group())]
    att, mlp = layer.attention, layer.mlp
    q, kv, hidden = att.heads * att.head_dim, att.kv_heads * att.head_dim, spec.hidden
    part = name.split(".", 2)[2].removesuffix(".weight").removesuffix(".bias")
    if part in ("attn.q_norm", "attn.k_norm"):
        return (att.head_dim if att.qk_norm == "head" else q if "q_" in part else kv,)
    matrices = {
        "attn.q": (q, hidden), "attn.k": (kv, hidden), "attn.v": (kv, hidden), "attn.o": (hidden, q),
        "mlp.gate": (mlp.width, hidden), "mlp.up": (mlp.width, hidden), "mlp.down": (hidden, mlp.width),
        "mlp.router": (mlp.experts, hidden),
        "mlp.experts.gate": (mlp.experts, mlp.width, hidden), "mlp.experts.up": (mlp.experts, mlp.width, hidden),
        "mlp.experts.down": (mlp.experts, hidden, mlp.width),
    }  # fmt: skip
    shape: tuple[int, ...] = matrices.get(part, (hidden,))
    return shape[:1] if name.endswith(".bias") else shape
