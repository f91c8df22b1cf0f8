"""What each operation of a Program computes: small pure functions, differentiable, of rows alone.

Shapes: `x` [tokens, width]. Norms, softmax and rotary embedding are computed in float32 whatever the
run's type. Attention is not here: the paged form is in `attention`, the dense one in `dense`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from headrace.backends.reference.adapters import AdaptedRows, adapted
from headrace.backends.reference.rotary import RotaryTables
from headrace.backends.reference.weights import Weights, linear, matrix
from headrace.spec.model import Rope
from headrace.spec.program import Activate, Add, Embed, Expert, Head, Matmul, Normalize, Operation, Rotate, Route

PIECE = 32768
"""Values that torch maps over without splitting them among threads, at boundaries that depend on their number."""

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}


@dataclass(slots=True)
class Frame:
    """The tokens that a run of operations works on, and their buffers by name."""

    tokens_t: Tensor
    positions_t: Tensor
    buffers: dict[str, Tensor] = field(default_factory=dict)
    adapters: tuple[AdaptedRows, ...] = ()
    _rotations: dict[Rope, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def rotation(self, rope: Rope, tables: RotaryTables) -> tuple[Tensor, Tensor]:
        """cos, sin [tokens, 1, dim / 2], looked up once for all layers."""
        if rope not in self._rotations:
            self._rotations[rope] = tables.at(rope, self.positions_t)
        return self._rotations[rope]


def pointwise(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Maps `function` in pieces of fixed size.

    A value that falls into the scalar tail of a vector loop may come out one bit apart; torch cuts
    larger tensors among its threads wherever that falls, fixed pieces keep the tail in one place.
    """
    if x.numel() <= PIECE:
        return function(x)
    return torch.cat([function(piece) for piece in x.reshape(-1).split(PIECE)]).view(x.shape)


def activation(name: str, x: Tensor) -> Tensor:
    return pointwise(_ACTIVATIONS[name], x.float()).to(x.dtype)


def embed(op: Embed, weights: Weights, tokens_t: Tensor, positions_t: Tensor) -> Tensor:
    x = F.embedding(tokens_t, weights[op.table])
    if op.scale != 1.0:
        x = x * op.scale
    if op.positions is not None:
        x = x + F.embedding(positions_t, weights[op.positions])
    if op.types is not None:
        x = x + weights[op.types][0]
    return x


def normalize(op: Normalize, x: Tensor, weights: Weights) -> Tensor:
    """RMSNorm (arXiv 1910.07467) or LayerNorm (1607.06450) over each of `op.parts` parts of a row."""
    gain, shape = weights[op.gain], x.shape
    bias = None if op.bias is None else weights[op.bias].float()
    x_part = x.float().view(shape[0], op.parts, -1)
    if op.norm.kind == "rms":
        scale = torch.rsqrt(x_part.pow(2).mean(-1, keepdim=True) + op.norm.eps)
        y = x_part * scale * gain.float()
        y = y if bias is None else y + bias
    else:
        y = F.layer_norm(x_part, (x_part.shape[-1],), gain.float(), bias, op.norm.eps)
    return y.view(shape).to(x.dtype)


def rotate(x: Tensor, heads: int, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates the two halves of the first `2 * cos.shape[-1]` values of each head (arXiv 2104.09864)."""
    x_thd = x.view(x.shape[0], heads, -1).float()
    half = cos.shape[-1]
    first, second, rest = x_thd[..., :half], x_thd[..., half : 2 * half], x_thd[..., 2 * half :]
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1)
    return turned.view(x.shape).to(x.dtype)


def route(op: Route, x: Tensor, weights: Weights) -> Tensor:
    """float32 [tokens, 2 * top_k]: the experts' numbers, then their weights; ties go to the lower number."""
    odds = torch.softmax((x @ weights[op.weight].t()).float(), dim=-1)
    top, index = torch.sort(odds, dim=-1, descending=True, stable=True)
    top, index = top[:, : op.mlp.top_k], index[:, : op.mlp.top_k]
    if op.mlp.renormalise:
        top = top / top.sum(-1, keepdim=True)
    return torch.cat((index.float(), top), dim=-1)


def experts(op: Expert, x: Tensor, routes: Tensor, weights: Weights, row_tile: int | None) -> Tensor:
    """Rows grouped by expert, each group in tiles of `row_tile` rows; ranks are added in order."""
    top_k = op.mlp.top_k
    expert_of = routes[:, :top_k].long().reshape(-1)
    order = torch.argsort(expert_of, stable=True)
    x_sorted = x[order // top_k]
    pieces, start = [], 0
    for expert, count in enumerate(torch.bincount(expert_of, minlength=op.mlp.experts).tolist()):
        group = x_sorted[start : start + count]
        start += count
        for tile in group.split(row_tile or count) if count else ():
            pieces.append(_expert_mlp(op, _padded(tile, row_tile), expert, weights)[: tile.shape[0]])
    y_trd = torch.cat(pieces)[torch.argsort(order)].view(x.shape[0], top_k, -1)
    share = routes[:, top_k:]
    out = y_trd[:, 0] * share[:, :1]
    for rank in range(1, top_k):
        out = out + y_trd[:, rank] * share[:, rank : rank + 1]
    return out.to(x.dtype)


def _padded(tile: Tensor, rows: int | None) -> Tensor:
    return tile if rows is None else F.pad(tile, (0, 0, 0, rows - tile.shape[0]))


def _expert_mlp(op: Expert, x: Tensor, expert: int, weights: Weights) -> Tensor:
    hidden = activation(op.mlp.activation, x @ weights[op.gate][expert].t())
    if op.mlp.gated:
        hidden = hidden * (x @ weights[op.up][expert].t())
    return hidden @ weights[op.down][expert].t()


def head(op: Head, x: Tensor, weights: Weights) -> Tensor:
    """float32 logits [tokens, vocab]."""
    bias = None if op.bias is None else weights[op.bias]
    logits = linear(x, matrix(weights, op.weight), bias).float()
    if op.scale != 1.0:
        logits = logits * op.scale
    if op.softcap is not None:
        cap = op.softcap
        logits = pointwise(lambda piece: torch.tanh(piece / cap) * cap, logits)
    return logits


def run_operation(op: Operation, frame: Frame, weights: Weights, tables: RotaryTables) -> None:
    """Runs one operation that works on each row alone; its output replaces the buffer of that name."""
    name, value = _HANDLERS[type(op)](op, frame, weights, tables)
    frame.buffers[name] = value


def _embed(op: Embed, frame: Frame, weights: Weights, _: RotaryTables) -> tuple[str, Tensor]:
    return op.out, embed(op, weights, frame.tokens_t, frame.positions_t)


def _normalize(op: Normalize, frame: Frame, weights: Weights, _: RotaryTables) -> tuple[str, Tensor]:
    return op.out, normalize(op, frame.buffers[op.x], weights)


def _matmul(op: Matmul, frame: Frame, weights: Weights, _: RotaryTables) -> tuple[str, Tensor]:
    bias = None if op.bias is None else weights[op.bias]
    x = frame.buffers[op.x]
    y = linear(x, matrix(weights, op.weight), bias)
    return op.out, adapted(frame.adapters, op.weight, x, y) if frame.adapters else y


def _rotate(op: Rotate, frame: Frame, _: Weights, tables: RotaryTables) -> tuple[str, Tensor]:
    return op.x, rotate(frame.buffers[op.x], op.heads, *frame.rotation(op.rope, tables))


def _activate(op: Activate, frame: Frame, *_: object) -> tuple[str, Tensor]:
    y = activation(op.activation, frame.buffers[op.gate])
    return op.out, y if op.up is None else y * frame.buffers[op.up]


def _route(op: Route, frame: Frame, weights: Weights, _: RotaryTables) -> tuple[str, Tensor]:
    return op.out, route(op, frame.buffers[op.x], weights)


def _add(op: Add, frame: Frame, *_: object) -> tuple[str, Tensor]:
    return op.out, frame.buffers[op.x] + frame.buffers[op.y]


def _head(op: Head, frame: Frame, weights: Weights, _: RotaryTables) -> tuple[str, Tensor]:
    return op.out, head(op, frame.buffers[op.x], weights)


_HANDLERS: dict[type, Callable[..., Any]] = {
    Embed: _embed,
    Normalize: _normalize,
    Matmul: _matmul,
    Rotate: _rotate,
    Activate: _activate,
    Route: _route,
    Add: _add,
    Head: _head,
}
