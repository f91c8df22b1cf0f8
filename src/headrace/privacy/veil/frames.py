"""Draws the keyed basis of each buffer of a plan, when it is asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import numpy as np

from headrace.privacy.veil.basis import Basis
from headrace.privacy.veil.errors import SymmetryError
from headrace.privacy.veil.keys import MODEL, Keystream, Master
from headrace.privacy.veil.rules import Group, Heads, Plan, Stream, Units

CONDITION = 3.0
"""Most condition number of a key: beyond 3 to 4 half precision loses small entries (AloePri, arXiv 2603.01499)."""

_KEPT = 32
"""Bases held at a time: more than one layer has."""


def check_condition(condition: float) -> None:
    """Raises SymmetryError for a number that no invertible matrix has."""
    if not 1 <= condition < np.inf:
        raise SymmetryError(f"No invertible matrix has a condition number of {condition:g}; give 1 or a bit more.")


class Frames:
    """Frame name -> Basis; those of past layers are forgotten and can be drawn again."""

    def __init__(self, plan: Plan, master: Master, condition: float = CONDITION) -> None:
        check_condition(condition)
        self.plan, self.master, self.condition = plan, master, condition
        self._stream: Basis | None = None
        self._kept: OrderedDict[str, Basis] = OrderedDict()

    def __getitem__(self, name: str) -> Basis:
        if name == "stream":
            self._stream = self._stream or stream_basis(self.plan.stream, self.master.stream(MODEL, "stream"))
            return self._stream
        if name not in self._kept:
            self._kept |= self._group_of(name)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return self._kept[name]

    def tokens(self) -> np.ndarray:
        """[vocab] int64: the id that each veiled id stands for."""
        return self["tokens"].order

    def _group_of(self, name: str) -> dict[str, Basis]:
        """The frame and those drawn with it."""
        draws = self.master.stream
        if name == "tokens":
            return {name: Basis.permutation(_order(self.plan.tokens, self.plan.vocab, draws(MODEL, "tokens")))}
        if name == "stream.order":
            return {name: Basis.permutation(self["stream"].order)}
        parts = name.split(".")
        layer = int(parts[1])
        if len(parts) == 3:
            found = head_frames(self.plan.heads[layer], partial(draws, layer), self.condition)
            return {f"layers.{layer}.{part}": basis for part, basis in found.items()}
        units, base = self.plan.units[layer], f"layers.{layer}.mlp"
        if parts[3] == "experts":
            return {name: Basis.permutation(_order(units.order, units.experts, draws(layer, "experts")))}
        role = "units" if len(parts) == 4 else f"expert-{parts[3]}"
        inner = base if len(parts) == 4 else f"{base}.{parts[3]}"
        found = unit_frames(units, draws(layer, role), self.condition)
        return {f"{inner}.{part}": basis for part, basis in found.items()}


def _order(group: Group, count: int, draws: Keystream) -> np.ndarray:
    return np.arange(count) if group == "identity" else draws.permutation(count)


def stream_basis(stream: Stream, draws: Keystream) -> Basis:
    """The residual stream's. `orthogonal_one` maps 1 to 1 or -1: reflect 1 to the first axis, turn the others."""
    size, group = stream.size, stream.group
    if group == "orthogonal":
        return Basis.orthogonal(draws.orthogonal(size))
    if group == "orthogonal_one":
        inner = np.zeros((size, size))
        inner[0, 0], inner[1:, 1:] = draws.signs(1)[0], draws.orthogonal(size - 1)
        mirror = _mirror(size)
        return Basis.orthogonal(mirror @ inner @ mirror)
    factors = np.ones(size)
    if group == "signed":
        factors = draws.signs(size)
    elif group == "signed_one":
        factors = np.full(size, draws.signs(1)[0])
    return Basis.of(factors, _order(group, size, draws))


def _mirror(size: int) -> np.ndarray:
    """[size, size]: the Householder reflection that swaps the first axis with 1 / sqrt(size)."""
    normal = np.full(size, size**-0.5)
    normal[0] -= 1.0
    length = normal @ normal
    return np.eye(size) - (2.0 / length if length else 0.0) * np.outer(normal, normal)


def head_frames(heads: Heads, draws: Callable[[str], Keystream], condition: float) -> dict[str, Basis]:
    """Bases of q, k, v and a of one layer; of the gains of query and key norms where there are any."""
    key_order, query_order = head_order(heads, draws("heads"))
    qk = head_blocks(heads.qk, heads, draws("qk"), condition)
    vo = head_blocks(heads.vo, heads, draws("vo"), condition)
    keys, values = Basis.of(qk), Basis.of(vo, key_order)
    repeat = np.repeat(np.arange(heads.count), heads.queries)
    frames = {
        "q": Basis(keys.blocks[repeat], keys.duals[repeat], query_order),
        "k": Basis(keys.duals, keys.blocks, key_order),
        "v": values,
        "a": Basis(values.blocks[repeat], values.duals[repeat], query_order),
    }
    if heads.gains == "head":
        gains = gain_factors(heads, 1, draws("gains"), condition)[0]
        return frames | {"q_gain": Basis.of(gains), "k_gain": Basis.of(1.0 / gains)}
    if heads.gains == "full":
        gains = gain_factors(heads, heads.count, draws("gains"), condition)
        diagonal = gains[:, :, None] * np.eye(heads.width)
        turned = Basis.of(diagonal)
        frames["q_gain"] = Basis(turned.blocks[repeat], turned.duals[repeat], query_order)
        frames["k_gain"] = Basis(turned.duals, turned.blocks, key_order)
    return frames


def head_order(heads: Heads, draws: Keystream) -> tuple[np.ndarray, np.ndarray]:
    """([key heads], [query heads]): key heads in any order, and the queries of each in any order."""
    keys = _order(heads.order, heads.count, draws)
    within = [_order(heads.order, heads.queries, draws) for _ in range(heads.count)]
    return keys, np.concatenate([key * heads.queries + within[key] for key in keys])


def head_blocks(group: Group, heads: Heads, draws: Keystream, condition: float) -> np.ndarray:
    """[key heads, width, width]: the key of each head's queries (the keys take its inverse transpose)."""
    count, width, rope = heads.count, heads.width, heads.rope
    blocks = np.tile(np.eye(width), (count, 1, 1))
    if group == "identity":
        return blocks
    if group == "general":
        return np.stack([draws.general(width, condition) for _ in range(count)])
    if group == "orthogonal":
        return np.stack([draws.orthogonal(width) for _ in range(count)])
    if group in ("permutation", "signed"):
        moved = np.stack([np.eye(width)[draws.permutation(width)] for _ in range(count)])
        return moved if group == "permutation" else moved * draws.signs(count * width).reshape(count, 1, width)
    if group == "signs":
        signs = np.stack([_per_plane(draws.signs(width - rope // 2), rope) for _ in range(count)])
        return blocks * signs[:, None]
    for block in blocks:
        block[:rope, :rope] = turned_planes(draws, rope // 2, condition)
        if rope < width:
            block[rope:, rope:] = draws.general(width - rope, condition)
    return blocks


def turned_planes(draws: Keystream, planes: int, condition: float) -> np.ndarray:
    """[2 planes, 2 planes]: in plane (i, i + planes) a turn and a factor, which commute with rotary positions."""
    angle, factor = 2.0 * np.pi * draws.uniform(planes), draws.scales(planes, condition)
    cos, sin = np.diag(factor * np.cos(angle)), np.diag(factor * np.sin(angle))
    return np.block([[cos, sin], [-sin, cos]])


def gain_factors(heads: Heads, count: int, draws: Keystream, condition: float) -> np.ndarray:
    """[count, width] factors of query norms' gains; the two values of a plane share one."""
    planes = heads.width - heads.rope // 2
    if heads.qk == "identity":
        return np.ones((count, heads.width))
    return np.stack([_per_plane(draws.scales(planes, condition), heads.rope) for _ in range(count)])


def _per_plane(values: np.ndarray, rope: int) -> np.ndarray:
    """[width] from one value a plane, then one for each value that does not rotate."""
    half = rope // 2
    return np.concatenate([values[:half], values[:half], values[half:]])


def unit_frames(units: Units, draws: Keystream, condition: float) -> dict[str, Basis]:
    """Bases of gate, up and their activated product, in one order; factors where the activation lets them pass."""
    order = _order(units.up, units.size, draws)
    gate, up = np.ones(units.size), np.ones(units.size)
    if units.gate:
        gate = draws.scales(units.size, condition)
    if units.gated and units.up == "scaled":
        up = draws.signs(units.size) * draws.scales(units.size, condition)
    return {part: Basis.of(factors, order) for part, factors in {"gate": gate, "up": up, "m": gate * up}.items()}
