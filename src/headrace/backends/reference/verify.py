"""Measures at load what the exactness contract rests on: a row's bits depend on that row alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import Tensor

from headrace.backends.reference.attention import QUERY_TILE
from headrace.backends.reference.operations import activation, normalize
from headrace.backends.reference.weights import Matrix, Weights, linear, matrix
from headrace.spec.model import PAGE_TOKENS, Attention
from headrace.spec.program import Activate, Expert, Head, Matmul, Normalize, Operation, Program, Route

ODD_COUNTS = (1, 3, 31)


def rows_independent(program: Program, weights: Weights, row_tile: int | None) -> bool:
    """True where every matrix shape of the program gave equal bits in every slot and company tried.

    With `row_tile` None row counts vary, so different counts are compared instead.
    """
    generator = torch.Generator().manual_seed(0)
    products = products_independent(_matrices(program, weights), row_tile)
    mapped = all(_slots_equal(f, width, dtype, row_tile, generator) for f, width, dtype in _maps(program, weights))
    attentions = {layer.attention for layer in program.spec.layers}
    return products and mapped and all(_attention_independent(att, generator) for att in attentions)


def products_independent(matrices: Iterable[Matrix], row_tile: int | None) -> bool:
    """True where a product of each distinct shape gave equal bits in every slot and company tried."""
    generator = torch.Generator().manual_seed(0)
    by_shape = {tuple(weight.shape): weight for weight in matrices}
    return all(_product_independent(weight, row_tile, generator) for weight in by_shape.values())


def _matrices(program: Program, weights: Weights) -> Iterator[Matrix]:
    for op in program.operations:
        yield from _operands(op, weights)


def _operands(op: Operation, weights: Weights) -> Iterable[Matrix]:
    if isinstance(op, Matmul | Head | Route):
        return (weights[op.weight],) if isinstance(op, Route) else (matrix(weights, op.weight),)
    if isinstance(op, Expert):
        names = (op.gate, op.up, op.down) if op.mlp.gated else (op.gate, op.down)
        return tuple(weights[name][0] for name in names)
    return ()


def _product_independent(weight: Matrix, row_tile: int | None, generator: torch.Generator) -> bool:
    return _slots_equal(lambda x: linear(x, weight), weight.shape[1], weight.dtype, row_tile, generator)


def _slots_equal(
    function: Callable[[Tensor], Tensor],
    width: int,
    dtype: torch.dtype,
    row_tile: int | None,
    generator: torch.Generator,
) -> bool:
    rows = row_tile or 32
    x = torch.randn(rows, width, generator=generator).to(dtype)
    y = function(x)
    order = torch.randperm(rows, generator=generator)
    if not torch.equal(function(x[order].contiguous()), y[order]):
        return False
    if row_tile is None:
        return all(torch.equal(function(x[:n].contiguous()), y[:n]) for n in ODD_COUNTS)
    alone = torch.zeros_like(x)
    alone[rows - 1] = x[0]
    return torch.equal(function(alone)[rows - 1], y[0])


def _maps(program: Program, weights: Weights) -> Iterator[tuple[Callable[[Tensor], Tensor], int, torch.dtype]]:
    """Norms and activations, one of each kind and width."""
    dtype, seen = next(value.dtype for value in weights.values()), set[object]()
    for op in program.operations:
        if isinstance(op, Normalize):
            width = weights[op.gain].shape[0] * op.parts
            key: object = (op.norm, width, op.parts)
            function: Callable[[Tensor], Tensor] = partial(_normalized, op, weights)
        elif isinstance(op, Activate):
            width = program.widths[op.out]
            key, function = (op.activation, width), partial(activation, op.activation)
        else:
            continue
        if key not in seen:
            seen.add(key)
            yield function, width, dtype


def _normalized(op: Normalize, weights: Weights, x: Tensor) -> Tensor:
    return normalize(op, x, weights)


def _attention_independent(att: Attention, generator: torch.Generator) -> bool:
    """The two batched products give each matrix the same bits whatever stands beside it."""
    queries, dim = att.heads // att.kv_heads * QUERY_TILE, att.head_dim
    q = torch.randn(64, queries, dim, generator=generator)
    k = torch.randn(64, PAGE_TOKENS, dim, generator=generator)
    scores = torch.bmm(k, q.transpose(1, 2))
    mixed = torch.bmm(scores.transpose(1, 2), k)
    slots = torch.randperm(queries, generator=generator)
    if not torch.equal(torch.bmm(k, q[:, slots].transpose(1, 2)), scores[:, :, slots]):
        return False
    if not torch.equal(torch.bmm(scores[:, :, slots].contiguous().transpose(1, 2), k), mixed[:, slots]):
        return False
    return all(
        torch.equal(torch.bmm(k[-n:], q[-n:].transpose(1, 2)), scores[-n:])
        and torch.equal(torch.bmm(scores[-n:].transpose(1, 2), k[-n:]), mixed[-n:])
        for n in ODD_COUNTS
    )
