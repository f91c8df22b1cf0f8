"""Paged attention whose arithmetic depends on logical positions alone.

Queries stand in tiles of 8 positions (position p in slot p % 8), keys and values in blocks of 16
(= pages). Each (tile, block, KV head) is one product of fixed shape; the greatest score over all
blocks is taken first (a maximum has no order), then the blocks' partial sums are added one after
the other from block 0 on. Blocks that a query cannot see add exact zeros, so how tiles are grouped,
what stands beside them and which page holds a block change nothing. (Online softmax, arXiv
1805.02867, would rescale by how far it has come; paging is arXiv 2309.06180.)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headrace.backends.reference.operations import PIECE
from headrace.backends.reference.pages import Pages
from headrace.backends.reference.step import Step
from headrace.spec.model import PAGE_TOKENS, Attention
from headrace.spec.program import Attend

QUERY_TILE = 8
ARENA_BYTES = 8 << 20
"""Least size of each of the two arenas (scores; gathered blocks with their products)."""

_LOWEST = -3.0e38


@dataclass(slots=True)
class Group:
    """Tiles that are computed together; n tiles over nb blocks, each tile's last block in the last place.

    `pages` [nb, n]; `hidden` [nb, n, 1, 16, 1, 8] true where a query must not see a key; `runs`: the
    ranges of blocks with any such place; `tokens`, `slots`: token i of the step stands in slot
    `slots[i]` of n * 8.
    """

    pages: Tensor
    hidden: Tensor
    runs: tuple[tuple[int, int], ...]
    tokens: Tensor
    slots: Tensor


@dataclass(frozen=True, slots=True)
class Tile:
    row: int
    position: int
    first: int
    last: int
    from_block: int
    to_block: int

    @property
    def blocks(self) -> int:
        return self.to_block - self.from_block


@dataclass(frozen=True, slots=True)
class Sizes:
    """Floats that one tile takes: in the score arena a block, in the product arena a block."""

    score: int
    product: int

    @classmethod
    def of(cls, attention: Attention) -> Sizes:
        heads, dim = attention.heads, attention.head_dim
        return cls(
            heads * QUERY_TILE * PAGE_TOKENS,
            heads * QUERY_TILE * dim + attention.kv_heads * PAGE_TOKENS * dim,
        )


class PagedAttention:
    """Runs the Attend operations of a program over `pages`; its two arenas are made once.

    `longest`: the most blocks of one sequence.
    """

    def __init__(self, attentions: Iterable[Attention], pages: Pages, longest: int) -> None:
        self.pages = pages
        score_floats, product_floats = arena_floats(attentions, longest)
        self._scores = torch.empty(score_floats).zero_()
        self._products = torch.empty(product_floats).zero_()

    def plan(self, op: Attend, step: Step) -> list[Group]:
        """The groups of tiles of one state group; the same for all its layers."""
        tiles = sorted(_tiles(step, op.attention), key=lambda tile: -tile.blocks)
        sizes = Sizes.of(op.attention)
        cut: list[list[Tile]] = []
        for tile in tiles:
            if cut and self._fits(sizes, cut[-1][0].blocks, len(cut[-1]) + 1) and 2 * tile.blocks >= cut[-1][0].blocks:
                cut[-1].append(tile)
            else:
                cut.append([tile])
        null = self.pages.counts[op.group]
        return [_group(part, op, step, null) for part in cut]

    def _fits(self, sizes: Sizes, blocks: int, tiles: int) -> bool:
        return sizes.score * blocks * tiles <= self._scores.numel() and sizes.product * tiles <= self._products.numel()

    def attend(self, op: Attend, plan: list[Group], step: Step, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [tokens, heads * dim], k and v [tokens, kv heads * dim] -> [tokens, heads * dim]."""
        att, count = op.attention, step.count
        shape = (count, att.kv_heads, att.head_dim)
        self.pages.write(op.layer, k[:count].view(shape), v[:count].view(shape), step.places[op.group])
        q_thd = q[:count].view(count, att.heads, att.head_dim).float() * att.scale
        out_thd = torch.zeros(q.shape[0], att.heads, att.head_dim, dtype=q.dtype)
        for group in plan:
            out_thd[group.tokens] = self._attend_group(op, group, q_thd).to(q.dtype)
        return out_thd.view(q.shape)

    def _attend_group(self, op: Attend, group: Group, q_thd: Tensor) -> Tensor:
        """[tokens of the group, heads, dim] float32."""
        att = op.attention
        tiles = group.pages.shape[1]
        q_xqd = _spread(q_thd, group, tiles, att)
        scores = self._score(op, group, q_xqd)
        _mask(scores, group, att)
        greatest = scores.amax(dim=0).amax(dim=1).clamp_min_(_LOWEST)
        scores.sub_(greatest.unsqueeze(1))
        for piece in scores.view(-1).split(PIECE):
            piece.exp_()
        mixed_xqd = self._mix(op, group, scores)
        shape = (tiles, att.kv_heads, att.heads // att.kv_heads, QUERY_TILE, att.head_dim)
        slots = mixed_xqd.view(shape).permute(0, 3, 1, 2, 4).reshape(tiles * QUERY_TILE, att.heads, att.head_dim)
        return slots[group.slots]

    def _score(self, op: Attend, group: Group, q_xqd: Tensor) -> Tensor:
        """Scores [blocks, tiles * kv heads, 16 keys, queries], a view of the arena."""
        blocks = group.pages.shape[0]
        across, queries, dim = q_xqd.shape
        scores = self._scores[: blocks * across * PAGE_TOKENS * queries].view(blocks, across, PAGE_TOKENS, queries)
        for at, end in self._chunks(op, group):
            keys, rest = self._gather(self.pages.keys[op.layer], group.pages[at:end])
            repeated = rest[: (end - at) * q_xqd.numel()].view(end - at, across, queries, dim)
            repeated.copy_(q_xqd.expand_as(repeated))
            out = scores[at:end].view(-1, PAGE_TOKENS, queries)
            torch.bmm(keys, repeated.view(-1, queries, dim).transpose(1, 2), out=out)
        if op.attention.softcap is not None:
            for piece in scores.view(-1).split(PIECE):
                piece.div_(op.attention.softcap).tanh_().mul_(op.attention.softcap)
        return scores

    def _mix(self, op: Attend, group: Group, weights: Tensor) -> Tensor:
        """Values mixed by `weights` (unnormalised): [tiles * kv heads, queries, dim]."""
        _, across, _, queries = weights.shape
        dim = op.attention.head_dim
        mixed = torch.zeros(across, queries, dim)
        total = torch.zeros(across, PAGE_TOKENS, queries)
        for at, end in self._chunks(op, group):
            values, rest = self._gather(self.pages.values[op.layer], group.pages[at:end])
            products = rest[: (end - at) * mixed.numel()].view(-1, queries, dim)
            torch.bmm(weights[at:end].view(-1, PAGE_TOKENS, queries).transpose(1, 2), values, out=products)
            products = products.view(end - at, across, queries, dim)
            for block in range(end - at):
                mixed.add_(products[block])
                total.add_(weights[at + block])
        return mixed.div_(_sum_keys(total).clamp_min_(1e-30).unsqueeze(-1))

    def _chunks(self, op: Attend, group: Group) -> list[tuple[int, int]]:
        blocks, tiles = group.pages.shape
        size = max(1, self._products.numel() // (Sizes.of(op.attention).product * tiles))
        return [(at, min(at + size, blocks)) for at in range(0, blocks, size)]

    def _gather(self, arena: Tensor, pages: Tensor) -> tuple[Tensor, Tensor]:
        """The pages' [blocks * tiles * kv heads, 16, dim] float32 in the product arena, and the rest of it."""
        floats = pages.numel() * arena[0].numel()
        out = self._products[:floats].view(pages.numel(), *arena.shape[1:])
        if arena.dtype == torch.float32:
            torch.index_select(arena, 0, pages.reshape(-1), out=out)
        else:
            out.copy_(arena.index_select(0, pages.reshape(-1)))
        return out.view(-1, PAGE_TOKENS, arena.shape[-1]), self._products[floats:]


def arena_floats(attentions: Iterable[Attention], longest: int) -> tuple[int, int]:
    """Floats of the score and the product arena: one tile over the longest sequence fits in any case."""
    sizes = [Sizes.of(attention) for attention in attentions]
    least = ARENA_BYTES // 4
    return max(least, *(longest * s.score for s in sizes)), max(least, *(s.product for s in sizes))


def _spread(q_thd: Tensor, group: Group, tiles: int, att: Attention) -> Tensor:
    """Queries in their slots, zeros elsewhere: [tiles * kv heads, heads a KV head * 8, dim]."""
    slots = torch.zeros(tiles * QUERY_TILE, att.heads, att.head_dim)
    slots[group.slots] = q_thd[group.tokens]
    share = att.heads // att.kv_heads
    by_head = slots.view(tiles, QUERY_TILE, att.kv_heads, share, att.head_dim).permute(0, 2, 3, 1, 4)
    return by_head.reshape(tiles * att.kv_heads, share * QUERY_TILE, att.head_dim)


def _mask(scores: Tensor, group: Group, att: Attention) -> None:
    blocks, tiles = group.pages.shape
    view = scores.view(blocks, tiles, att.kv_heads, PAGE_TOKENS, att.heads // att.kv_heads, QUERY_TILE)
    for at, end in group.runs:
        view[at:end].masked_fill_(group.hidden[at:end], -torch.inf)


def _sum_keys(total: Tensor) -> Tensor:
    """Sum over the 16 places of a block by halves: torch.sum's order may vary with the shape."""
    while total.shape[1] > 1:
        half = total.shape[1] // 2
        total = total[:, :half] + total[:, half:]
    return total[:, 0]


def _tiles(step: Step, att: Attention) -> list[Tile]:
    tiles = []
    for index, row in enumerate(step.batch.rows):
        end = row.start + len(row.tokens)
        for position in range(row.start // QUERY_TILE * QUERY_TILE, end, QUERY_TILE):
            first, last = max(position, row.start), min(position + QUERY_TILE, end) - 1
            from_block = 0 if att.window is None else max(0, first - att.window + 1) // PAGE_TOKENS
            to_block = (last if att.causal else end - 1) // PAGE_TOKENS + 1
            tiles.append(Tile(index, position, first, last, from_block, to_block))
    return tiles


def _group(tiles: list[Tile], op: Attend, step: Step, null: int) -> Group:
    blocks = max(tile.blocks for tile in tiles)
    pages = np.full((blocks, len(tiles)), null, dtype=np.int64)
    tokens, slots = [], []
    for at, tile in enumerate(tiles):
        row = step.batch.rows[tile.row]
        pages[blocks - tile.blocks :, at] = row.pages[op.group][tile.from_block : tile.to_block]
        offset = step.starts[tile.row] - row.start
        tokens.append(np.arange(tile.first, tile.last + 1) + offset)
        slots.append(np.arange(tile.first, tile.last + 1) - tile.position + at * QUERY_TILE)
    hidden = _hidden(tiles, op.attention, step, blocks)
    return Group(
        torch.from_numpy(pages),
        torch.from_numpy(hidden[:, :, None, :, None, :]),
        _runs(np.asarray(hidden.any(axis=(1, 2, 3)))),
        torch.from_numpy(np.concatenate(tokens)),
        torch.from_numpy(np.concatenate(slots)),
    )


def _hidden(tiles: list[Tile], att: Attention, step: Step, blocks: int) -> np.ndarray:
    """[blocks, tiles, 16 keys, 8 queries] true where the query must not see the key."""
    to_block = np.array([tile.to_block for tile in tiles])
    block = to_block + np.arange(-blocks, 0)[:, None]
    key = (block[:, :, None] * PAGE_TOKENS + np.arange(PAGE_TOKENS))[..., None]
    query = (np.array([tile.position for tile in tiles])[:, None] + np.arange(QUERY_TILE))[None, :, None, :]
    absent = block < np.array([tile.from_block for tile in tiles])
    hidden = np.broadcast_to(absent[..., None, None], (blocks, len(tiles), PAGE_TOKENS, QUERY_TILE)).copy()
    if att.causal:
        hidden |= key > query
    else:
        rows = step.batch.rows
        hidden |= key >= np.array([len(rows[tile.row].tokens) for tile in tiles])[None, :, None, None]
    if att.window is not None:
        hidden |= query - key >= att.window
    return hidden


def _runs(flags: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Ranges of consecutive true flags."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    return tuple((int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True))
