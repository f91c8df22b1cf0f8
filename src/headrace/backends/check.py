"""A batch held against what the backend was built for, before anything runs."""

from __future__ import annotations

from collections.abc import Container

from headrace.model.adapter import check_adapter
from headrace.spec.adapter import Adapter
from headrace.spec.batch import Batch, PageCopy, Row
from headrace.spec.errors import InvalidRequest
from headrace.spec.executor import Limits
from headrace.spec.model import PAGE_TOKENS, ModelSpec


def check(batch: Batch, spec: ModelSpec, limits: Limits, adapters: Container[str] = ()) -> None:
    """Raises InvalidRequest naming the row that breaks a limit, or has an adapter that is not there."""
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
        if row.adapter is not None and row.adapter not in adapters:
            problem = f"has the adapter {row.adapter}, which is not loaded; add it first"
        if problem:
            raise InvalidRequest(f"Row {index} (sequence {row.sequence}) {problem}.", "rows")
    for copy in batch.copies:
        if problem := _copy_problem(copy, limits):
            raise InvalidRequest(f"{copy} {problem}.", "copies")


def check_new_adapter(adapter: Adapter, spec: ModelSpec, loaded: Container[str]) -> None:
    """Raises InvalidRequest for a name that is taken, ModelFileError for an adapter that does not fit."""
    if adapter.name in loaded:
        raise InvalidRequest(f"Adapter {adapter.name} is loaded already; remove it first, or choose a name.", "adapter")
    check_adapter(adapter, spec)


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
    if end > spec.context:
        return f"ends at position {end} beyond the context of {spec.context}; shorten it"
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
        used = table[:needed]
        if min(used) < 0 or max(used) >= count:
            return f"names a page outside the {count} of group {group}; use an existing one"
    return None
