"""A Batch checked and turned into index arrays, once for all layers."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headrace.backends.check import check
from headrace.backends.reference.adapters import strengths
from headrace.backends.reference.pages import Place
from headrace.spec.batch import Batch
from headrace.spec.executor import Limits
from headrace.spec.model import PAGE_TOKENS, ModelSpec


@dataclass(slots=True)
class Step:
    """`tokens_t`, `positions_t` [padded tokens]; `places[g]` and `kept` speak of the real ones.

    `strengths`: adapter -> [padded tokens, 1], 0 where a token's row does not have it.
    """

    batch: Batch
    count: int
    tokens_t: Tensor
    positions_t: Tensor
    places: tuple[Place, ...]
    kept: Tensor
    starts: tuple[int, ...]
    strengths: dict[str, Tensor]

    def reads(self) -> dict[int, list[int]]:
        """Hidden state -> indices of the rows that ask for it."""
        wanted: dict[int, list[int]] = {}
        for index, row in enumerate(self.batch.rows):
            for state in row.reads:
                wanted.setdefault(state, []).append(index)
        return wanted


def padded_count(tokens: int, row_tile: int | None) -> int:
    return tokens if row_tile is None else -(-tokens // row_tile) * row_tile


def prepare(batch: Batch, spec: ModelSpec, limits: Limits, row_tile: int | None, adapters: Container[str] = ()) -> Step:
    """Raises InvalidRequest for a batch that breaks the limits or names what does not exist."""
    check(batch, spec, limits, adapters)
    count = batch.token_count
    tokens, positions = np.zeros((2, padded_count(count, row_tile)), dtype=np.int64)
    starts, kept, at = [], [], 0
    for row in batch.rows:
        size = len(row.tokens)
        tokens[at : at + size] = row.tokens
        positions[at : at + size] = np.arange(row.start, row.start + size)
        if row.logits_from is not None:
            kept.append(np.arange(at + row.logits_from, at + size))
        starts.append(at)
        at += size
    places = tuple(_place(batch, group, positions[:count]) for group in range(len(limits.pages)))
    kept_rows = np.concatenate(kept) if kept else np.zeros(0, dtype=np.int64)
    return Step(
        batch,
        count,
        torch.from_numpy(tokens),
        torch.from_numpy(positions),
        places,
        torch.from_numpy(kept_rows),
        tuple(starts),
        strengths(batch, len(tokens)),
    )


def _place(batch: Batch, group: int, positions: np.ndarray) -> Place:
    pages = [
        np.asarray(row.pages[group], dtype=np.int64)[np.arange(row.start, row.start + len(row.tokens)) // PAGE_TOKENS]
        for row in batch.rows
    ]
    page = np.concatenate(pages) if pages else np.zeros(0, dtype=np.int64)
    return Place(torch.from_numpy(page), torch.from_numpy(positions % PAGE_TOKENS))
