"""The paged keys and values: one arena a layer, cut into pages of 16 logical positions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from headrace.spec.batch import PageCopy
from headrace.spec.model import PAGE_TOKENS, ModelSpec


def state_bytes(spec: ModelSpec, pages: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Bytes of each state group's arena; one page more than asked for is the null page, always zero."""
    groups = spec.state_groups()
    return tuple(
        (count + 1) * PAGE_TOKENS * group.values_per_token * itemsize
        for group, count in zip(groups, pages, strict=True)
    )


class Pages:
    """`keys[layer]`, `values[layer]`: [pages + 1, kv heads, PAGE_TOKENS, head size].

    Allocated and touched at once; the executor has reserved `state_bytes` before. Padding reads the null page (the
    last one), so that nothing which another sequence left behind enters a sum, not even as 0 * inf.
    """

    def __init__(self, spec: ModelSpec, pages: Sequence[int], dtype: torch.dtype) -> None:
        self.counts = tuple(pages)
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self._layers = tuple(group.layers for group in spec.state_groups())
        for layers, count in zip(self._layers, pages, strict=True):
            for layer in layers:
                attention = spec.layers[layer].attention
                shape = (count + 1, attention.kv_heads, PAGE_TOKENS, attention.head_dim)
                self.keys[layer] = torch.empty(shape, dtype=dtype).zero_()
                self.values[layer] = torch.empty(shape, dtype=dtype).zero_()

    def copy(self, copies: Sequence[PageCopy]) -> None:
        """Copies whole pages, in order, in every layer of the group."""
        for copy in copies:
            for layer in self._layers[copy.group]:
                self.keys[layer][copy.target] = self.keys[layer][copy.source]
                self.values[layer][copy.target] = self.values[layer][copy.source]

    def write(self, layer: int, k_thd: Tensor, v_thd: Tensor, place: Place) -> None:
        """Stores the keys and values of a step's tokens.

        A page that is entered at its first position is cleared: an earlier owner's infinity would
        otherwise turn a masked weight of zero into NaN.
        """
        keys, values = self.keys[layer], self.values[layer]
        if place.fresh_pages.numel():
            values.index_fill_(0, place.fresh_pages, 0)
        keys[place.page, :, place.offset] = k_thd
        values[place.page, :, place.offset] = v_thd


class Place:
    """Where a step's tokens stand in one state group: page and offset in it, [tokens] each."""

    def __init__(self, page: Tensor, offset: Tensor) -> None:
        self.page, self.offset = page, offset
        self.fresh_pages = page[offset == 0]
