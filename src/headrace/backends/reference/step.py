"""A Batch checked and turned into index arrays, once for all layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headrace.backends.reference.pages import Place
from headrace.spec.batch import Batch, PageCopy, Row
from headrace.spec.errors import InvalidRequest
from headrace.spec.executor import Limits
from headrace.spec.model import PAGE_TOKENS, ModelSpec


@dataclass(slots=True)
class Step:
    """`tokens_t`, `positions_t` [padded tokens]; `places[g]` and `kept` speak of the real ones."""

    batch: Batch
    count: int
    tokens_t: Tensor
    positions_t: Tensor
    places: tuple[Place, ...]
    kept: Tensor
    starts: tuple[int, ...]

    def reads(self) -> dict[int, list[int]]:
        """Hidden state -> indices of the rows that ask for it."""
        wanted: dict[int, list[int]] = {}
        for index, row in enumerate(self.batch.rows):
            for state in row.reads:
                wanted.setdefault(state, []).append(index)
        return wanted


def padded_count(tokens: int, row_tile: int | None) -> int:
    return tokens if row_tile is None else -(-tokens // row_tile) * row_tile


def prepare(batch: Batch, spec: ModelSpec, limits: Limits, row_tile: int | None) -> Step:
    """Raises InvalidRequest for a batch that breaks the limits or names what does not exist."""
    check(batch, spec, limits)
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
    )


def _place(batch: Batch, group: int, positions: np.ndarray) -> Place:
    pages = [
        np.asarray(row.pages[group], dtype=np.int64)[np.arange(row.start, row.start + len(row.tokens)) // PAGE_TOKENS]
        for row in batch.rows
    ]
    page = np.concatenate(pages) if pages else np.zeros(0, dtype=np.int64)
    return Place(torch.from_numpy(page), torch.from_numpy(positions % PAGE_TOKENS))


def check(batch: Batch, spec: ModelSpec, limits: Limits) -> None:
    """Raises InvalidRequest naming the row that breaks a limit."""
    if batch.token_count > limits.tokens:
        raise InvalidRequest(
            f"The batch has {batch.token_count} tokens, the backend was built for {limits.tokens}; split it.", "rows"
        )
    if batch.logit_count > limits.logits:
        raise InvalidRequest(
            f"The batch asks for {batch.logit_count} rows of logits, the backend was built for {limits.logits}; "
            "ask for fewer a step.",
            "logits_from",
        )
    for index, row in enumerate(batch.rows):
        problem = _row_problem(row, spec, limits)
        if problem:
            raise InvalidRequest(f"Row {index} (sequence {row.sequence}) {problem}.", "rows")
    for copy in batch.copies:
        if problem := _copy_problem(copy, limits):
            raise InvalidRequest(f"{copy} {problem}.", "copies")


def _copy_problem(copy: PageCopy, limits: Limits) -> str | None:
    if not 0 <= copy.group < len(limits.pages):
        return f"names a state group of {len(limits.pages)}; use an existing one"
    if not (0 <= copy.source < limits.pages[copy.group] and 0 <= copy.target < limits.pages[copy.group]):
        return f"is outside the {limits.pages[copy.group]} pages; use an existing page"
    return None


def _row_problem(row: Row, spec: ModelSpec, limits: Limits) -> str | None:
    size, end = len(row.tokens), row.start + len(row.tokens)
    if size == 0 or row.start < 0:
        return f"spans {size} tokens from position {row.start}; give at least one token from position 0 on"
    if min(row.tokens) < 0 or max(row.tokens) >= spec.vocab:
        return f"has a token outside the vocabulary of {spec.vocab}; check the ids"
    if spec.learned_positions and end > spec.learned_positions:
        return f"ends at position {end} beyond the {spec.learned_positions} learned ones; shorten it"
    if row.logits_from is not None and not 0 <= row.logits_from <= size:
        return f"wants logits from offset {row.logits_from} of {size} tokens; give an offset within the span"
    if row.logits_from is not None and not spec.causal:
        return "wants logits of an encoder, which has none; read its hidden states"
    if any(not 0 <= state <= len(spec.layers) for state in row.reads):
        return f"reads hidden states {row.reads}; there are 0 to {len(spec.layers)}"
    if not spec.causal and row.start:
        return f"starts at position {row.start}; an encoder takes a sequence whole"
    return _page_problem(row, limits, -(-end // PAGE_TOKENS))


def _page_problem(row: Row, limits: Limits, needed: int) -> str | None:
    if len(row.pages) != len(limits.pages):
        return f"has {len(row.pages)} page tables for {len(limits.pages)} state groups; give one a group"
    for group, (table, count) in enumerate(zip(row.pages, limits.pages, strict=True)):
        if len(table) < needed:
            return f"needs {needed} pages in group {group} and names {len(table)}; extend its table"
        if min(table[:needed]) < 0 or max(table[:needed]) >= count:
            return f"names a page outside the {count} of group {group}; use an existing one"
    return None
