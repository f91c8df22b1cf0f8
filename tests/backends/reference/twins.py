"""Tiny random models, and a plain forward pass to hold them against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from headrace.backends.reference.executor import ReferenceExecutor
from headrace.model.tensor import Tensor
from headrace.spec.batch import Batch, Row
from headrace.spec.executor import Limits, StepResult
from headrace.spec.ledger import Ledger
from headrace.spec.model import PAGE_TOKENS, Attention, Layer, Mlp, ModelSpec, Norm, Rope
from headrace.spec.program import Expert, Operation, compile_program, weight_names
from headrace.spec.rope import rope_amplitude, rope_frequencies

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

    def torch(self) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(tensor.numpy().copy()) for name, tensor in self.tensors.items()}


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


def oracle(spec: ModelSpec, w: Mapping[str, torch.Tensor], tokens: Sequence[int]) -> tuple[torch.Tensor, list]:
    """(logits [time, vocab] or the last hidden state, hidden states) of one sequence, written plainly."""
    at = torch.arange(len(tokens))
    x = w["embed.weight"][torch.tensor(tokens)] * spec.embed_scale
    x = x + w["embed.positions"][at] if spec.learned_positions else x
    x = x + w["embed.types"][0] if spec.token_types else x
    x = _norm(x, w, "embed.norm", spec.embed_norm) if spec.embed_norm else x
    states = [x]
    for index, layer in enumerate(spec.layers):
        for name, block in (("attn", _attention), ("mlp", _mlp)):
            base = f"layers.{index}.{name}"
            h = _norm(x, w, f"{base}_norm", layer.norm) if layer.norms in ("before", "both") else x
            o = block(layer, h, w, base)
            o = _norm(o, w, f"{base}_post_norm", layer.norm) if layer.norms in ("after", "both") else o
            x = x + o
            x = _norm(x, w, f"{base}_post_norm", layer.norm) if layer.norms == "on_residual" else x
        states.append(x)
    x = states[-1] = _norm(x, w, "norm", spec.final_norm) if spec.final_norm else x
    if not spec.causal:
        return x, states
    logits = x @ w["embed.weight" if spec.tied else "head.weight"].T
    logits = (logits + w["head.bias"] if spec.head_bias else logits) * spec.logit_scale
    cap = spec.logit_softcap
    return (cap * torch.tanh(logits / cap) if cap else logits), states


def _norm(x: torch.Tensor, w: Mapping[str, torch.Tensor], name: str, norm: Norm) -> torch.Tensor:
    gain, bias = w[f"{name}.weight"], w.get(f"{name}.bias", torch.zeros(()))
    if norm.kind == "layer":
        x = x - x.mean(-1, keepdim=True)
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + norm.eps) * gain + bias


def _linear(x: torch.Tensor, w: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", torch.zeros(()))


def _attention(layer: Layer, x: torch.Tensor, w: Mapping[str, torch.Tensor], base: str) -> torch.Tensor:
    att, time = layer.attention, len(x)
    heads = {"q": att.heads, "k": att.kv_heads, "v": att.kv_heads}
    part = {name: _linear(x, w, f"{base}.{name}") for name in "qkv"}
    for name in "qk" if att.qk_norm != "none" else "":
        rows = part[name].view(time, heads[name], -1) if att.qk_norm == "head" else part[name]
        part[name] = _norm(rows, w, f"{base}.{name}_norm", Norm("rms", att.qk_norm_eps)).reshape(time, -1)
    q, k, v = (part[name].view(time, heads[name], att.head_dim) for name in "qkv")
    if att.rope:
        q, k = _turned(q, att.rope), _turned(k, att.rope)
    out = []
    for head in range(att.heads):
        shared = head * att.kv_heads // att.heads
        scores = q[:, head] @ k[:, shared].T * att.scale
        scores = att.softcap * torch.tanh(scores / att.softcap) if att.softcap else scores
        hidden = [
            [(att.causal and j > i) or (att.window is not None and i - j >= att.window) for j in range(time)]
            for i in range(time)
        ]
        scores = scores.masked_fill(torch.tensor(hidden), -torch.inf)
        out.append(torch.softmax(scores, -1) @ v[:, shared])
    return _linear(torch.cat(out, -1), w, f"{base}.o")


def _turned(x: torch.Tensor, rope: Rope) -> torch.Tensor:
    """Pairs (i, i + dim / 2) as complex numbers, turned in double precision."""
    half = rope.dim // 2
    angles = torch.tensor([[p * f for f in rope_frequencies(rope, p + 1)] for p in range(len(x))], dtype=torch.float64)
    turn = torch.polar(torch.full_like(angles, rope_amplitude(rope)), angles)[:, None]
    turned = torch.complex(x[..., :half].double(), x[..., half : 2 * half].double()) * turn
    return torch.cat((turned.real.float(), turned.imag.float(), x[..., rope.dim :]), -1)


def _mlp(layer: Layer, x: torch.Tensor, w: Mapping[str, torch.Tensor], base: str) -> torch.Tensor:
    mlp = layer.mlp
    act = {"silu": F.silu, "gelu": F.gelu, "relu": F.relu, "gelu_tanh": lambda t: F.gelu(t, approximate="tanh")}
    if not mlp.experts:
        up = _linear(x, w, f"{base}.up")
        m = act[mlp.activation](_linear(x, w, f"{base}.gate")) * up if mlp.gated else act[mlp.activation](up)
        return _linear(m, w, f"{base}.down")
    rows = []
    for row in x:
        odds = torch.softmax(w[f"{base}.router.weight"] @ row, -1)
        chosen = torch.topk(odds, mlp.top_k)
        total = chosen.values.sum() if mlp.renormalise else 1.0
        y = torch.zeros(len(row))
        for odd, expert in zip(chosen.values, chosen.indices.tolist(), strict=True):
            gate, up, down = (w[f"{base}.experts.{part}"][expert] for part in ("gate", "up", "down"))
            y = y + odd / total * (down @ (act[mlp.activation](gate @ row) * (up @ row)))
        rows.append(y)
    return torch.stack(rows)


def executor(spec: ModelSpec, dtype: str = "fp32", seed: int = 0, **options: Any) -> ReferenceExecutor:
    limits = options.pop("limits", Limits((PAGES,) * len(spec.state_groups()), 256, 256))
    return ReferenceExecutor(spec, RandomStore(spec, seed), limits, options.pop("ledger", Ledger()), dtype, **options)


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


def submit(backend: ReferenceExecutor, *rows: Row, **more: Any) -> StepResult:
    result = backend.submit(Batch(0, rows, **more)).result()
    return StepResult(result.logits.copy(), {key: value.copy() for key, value in result.hidden.items()})
