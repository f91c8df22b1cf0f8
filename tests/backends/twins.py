"""Tiny random models, and the rows of batches for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from headrace.model.tensor import Tensor
from headrace.spec.batch import Batch, Row
from headrace.spec.executor import Executor, Limits, StepResult
from headrace.spec.model import PAGE_TOKENS, Attention, Layer, Mlp, ModelSpec, Norm, Rope
from headrace.spec.program import Expert, Operation, compile_program, weight_names

HIDDEN, WIDTH, VOCAB, CONTEXT, PAGES = 32, 48, 67, 160, 40
NONE: Mapping[str, Any] = {}


def decoder(
    attention: Mapping[str, Any] = NONE, mlp: Mapping[str, Any] = NONE, layer: Mapping[str, Any] = NONE, **spec: Any
) -> ModelSpec:
    att = Attention(**{"heads": 4, "kv_heads": 2, "head_dim": 8, "scale": 8**-0.5, "rope": Rope(8), **attention})
    one = Layer(att, Mlp(**{"width": WIDTH, **mlp}), **{"norm": Norm(), **layer})
    layers = spec.pop("layers", (one, one))
    known = {"hidden": HIDDEN, "vocab": VOCAB, "context": CONTEXT, "final_norm": Norm(), **spec}
    return ModelSpec(family="twin", layers=layers, **known)


def windows(spec: ModelSpec, *sizes: int | None) -> ModelSpec:
    """The same model with one layer for each window."""
    first = spec.layers[0]
    return replace(spec, layers=tuple(replace(first, attention=replace(first.attention, window=n)) for n in sizes))


def unequal(spec: ModelSpec) -> ModelSpec:
    """The same model with a narrower layer of half as many heads behind the others."""
    last = spec.layers[-1]
    heads, kv_heads = last.attention.heads // 2, last.attention.kv_heads // 2
    attention = replace(last.attention, heads=heads, kv_heads=kv_heads)
    small = replace(last, attention=attention, mlp=replace(last.mlp, width=last.mlp.width * 2 // 3))
    return replace(spec, layers=(*spec.layers, small))


LAYER_NORM = Norm("layer", 1e-5, bias=True)
MODELS: dict[str, ModelSpec] = {
    "grouped-query": decoder(),
    "tied, biases": decoder({"qkv_bias": True, "out_bias": True}, {"bias": True}, tied=True),
    "windows": windows(decoder(), 20, None, 5),
    "soft-caps": decoder({"softcap": 2.0}, logit_softcap=3.0, embed_scale=4.0, logit_scale=0.5),
    "qk norm a head": decoder({"qk_norm": "head"}),
    "qk norm full": decoder({"qk_norm": "full"}, layer={"norms": "after"}),
    "norms on both sides": decoder(mlp={"activation": "gelu_tanh"}, layer={"norms": "both"}),
    "partial rotary": decoder({"rope": Rope(4, theta=100.0)}),
    "dynamic rotary": decoder({"rope": Rope(8, scaling="dynamic", factor=4.0, original=24)}),
    "yarn rotary": decoder({"rope": Rope(8, scaling="yarn", factor=4.0, original=40)}),
    "learned positions": decoder(
        {"rope": None, "qkv_bias": True, "out_bias": True},
        {"gated": False, "bias": True, "activation": "gelu"},
        {"norm": LAYER_NORM},
        learned_positions=CONTEXT,
        final_norm=LAYER_NORM,
    ),
    "unequal layers": unequal(decoder()),
    "experts": decoder(mlp={"experts": 5, "top_k": 2}),
    "experts, as routed": decoder(mlp={"experts": 5, "top_k": 3, "renormalise": False, "activation": "relu"}),
}
ENCODER = decoder(
    {"rope": None, "causal": False, "qkv_bias": True, "out_bias": True},
    {"gated": False, "bias": True, "activation": "gelu"},
    {"norm": LAYER_NORM, "norms": "on_residual"},
    learned_positions=CONTEXT,
    token_types=2,
    embed_norm=LAYER_NORM,
    final_norm=None,
    causal=False,
)


class RandomStore:
    """A WeightStore of random float32 weights of the right shapes."""

    def __init__(self, spec: ModelSpec, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.released = 0
        self.tensors: dict[str, Tensor] = {}
        for op in compile_program(spec).operations:
            for name in weight_names(op):
                shape = weight_shape(spec, op, name)
                values = rng.standard_normal(shape) * (0.3 if len(shape) == 1 else shape[-1] ** -0.5)
                gain = name.endswith("norm.weight")
                self.tensors.setdefault(name, Tensor.of(name, (values + gain).astype(np.float32)))

    def lease(self, operations: Sequence[Operation]) -> dict[str, Tensor]:
        return {name: self.tensors[name] for op in operations for name in weight_names(op)}

    def release(self, operations: Sequence[Operation]) -> None:
        self.released += 1


def weight_shape(spec: ModelSpec, op: Operation, name: str) -> tuple[int, ...]:
    parts = name.split(".")
    if name in ("embed.weight", "head.weight"):
        return spec.vocab, spec.hidden
    if name in ("embed.positions", "embed.types"):
        return (spec.learned_positions if "pos" in name else spec.token_types), spec.hidden
    if parts[0] != "layers":
        return (spec.vocab if name == "head.bias" else spec.hidden,)
    layer = spec.layers[int(parts[1])]
    att, mlp = layer.attention, layer.mlp
    q, k = att.heads * att.head_dim, att.kv_heads * att.head_dim
    if parts[-2] in ("q_norm", "k_norm"):
        return ({"q_norm": q, "k_norm": k}[parts[-2]] if att.qk_norm == "full" else att.head_dim,)
    if isinstance(op, Expert):
        return (mlp.experts, *((spec.hidden, mlp.width) if parts[-1] == "down" else (mlp.width, spec.hidden)))
    inner = {"q": q, "k": k, "v": k, "gate": mlp.width, "up": mlp.width, "router": mlp.experts}
    shapes = {part: (size, spec.hidden) for part, size in inner.items()} | {
        "o": (spec.hidden, q),
        "down": (spec.hidden, mlp.width),
    }
    shape = shapes.get(parts[-2], (spec.hidden,))
    return shape[:1] if parts[-1] == "bias" else shape


def limits_of(spec: ModelSpec) -> Limits:
    return Limits((PAGES,) * len(spec.state_groups()), 256, 256)


def draw(count: int, seed: int = 1, vocab: int = VOCAB) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(0, vocab, count).tolist())


def row(
    spec: ModelSpec, tokens: Sequence[int], start: int = 0, slots: Sequence[int] = range(PAGES), **more: Any
) -> Row:
    """A row whose pages are the first of `slots`, the last ones in every second state group."""
    needed = -(-(start + len(tokens)) // PAGE_TOKENS)
    tables = (slots[:needed], slots[::-1][:needed])
    pages = tuple(tuple(tables[group % 2]) for group in range(len(spec.state_groups())))
    return Row(more.pop("sequence", 0), "prefill", start, tuple(tokens), pages, **{"logits_from": 0, **more})


def submit(backend: Executor, *rows: Row, **more: Any) -> StepResult:
    result = backend.submit(Batch(0, rows, **more)).result()
    return StepResult(result.logits.copy(), {key: value.copy() for key, value in result.hidden.items()})


def distance(found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference over the largest value."""
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())
