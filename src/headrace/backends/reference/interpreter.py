"""Runs a Program over a step's tokens in tiles of a fixed number of rows.

Every operation that works on each row alone sees exactly `row_tile` rows, padded with rows that
nobody reads: a matrix product may sum in another order for another row count, so there is only one.
Attend, Keep and Expert need the whole batch and stand between the tiled spans.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from headrace.backends.reference.adapters import LoadedAdapter
from headrace.backends.reference.attention import Group, PagedAttention
from headrace.backends.reference.operations import Frame, experts, run_operation
from headrace.backends.reference.rotary import RotaryTables
from headrace.backends.reference.step import Step, padded_count
from headrace.backends.reference.weights import Weights
from headrace.spec.executor import StepResult
from headrace.spec.model import Attention
from headrace.spec.program import Attend, Expert, Keep, Operation, Program

WHOLE_BATCH = (Attend, Keep, Expert)
Plans: TypeAlias = dict[tuple[int, Attention], list[Group]]


class Interpreter:
    """`logits` [most rows, vocab] float32 receives the result; None for an encoder."""

    def __init__(
        self,
        program: Program,
        weights: Weights,
        tables: RotaryTables,
        attention: PagedAttention,
        logits: Tensor | None,
        row_tile: int | None,
    ) -> None:
        self.program, self.weights, self.tables = program, weights, tables
        self.attention, self.logits, self.row_tile = attention, logits, row_tile
        self.adapters: dict[str, LoadedAdapter] = {}
        self._spans = _spans(program.operations)

    def run(self, step: Step) -> StepResult:
        if not step.count:
            return StepResult(self._result(step).numpy())
        reads = step.reads()
        watched = {self.program.hidden_after[state]: state for state in reads}
        seen: dict[int, list[Tensor]] = {}
        plans: Plans = {}
        frames = self._adapted(self._tiles(step.tokens_t, step.positions_t), step)
        for start, stop in self._spans:
            first = self.program.operations[start]
            if isinstance(first, Keep):
                frames = self._keep(first, step, frames)
                if not frames:
                    break
            elif isinstance(first, WHOLE_BATCH):
                self._whole(first, step, frames, plans)
                self._watch(start + 1, frames, watched, seen)
            else:
                for number in range(len(frames)):
                    self._run_span(start, stop, frames, number, watched, seen)
        hidden = _cut(step, reads, seen)
        return StepResult(self._result(step).numpy(), hidden)

    def _tiles(self, tokens_t: Tensor, positions_t: Tensor) -> list[Frame]:
        size = self.row_tile or len(tokens_t) or 1
        return [Frame(t, p) for t, p in zip(tokens_t.split(size), positions_t.split(size), strict=True) if len(t)]

    def _adapted(self, frames: list[Frame], step: Step) -> list[Frame]:
        """Tells each tile of the adapters that its rows have."""
        at = 0
        for frame in frames if step.strengths else ():
            end = at + len(frame.tokens_t)
            parts = ((self.adapters[name], strength[at:end]) for name, strength in step.strengths.items())
            frame.adapters = tuple((adapter, strength) for adapter, strength in parts if strength.any())
            at = end
        return frames

    def _run_span(
        self, start: int, stop: int, frames: list[Frame], number: int, watched: dict[int, int], seen: dict
    ) -> None:
        frame = frames[number]
        for index in range(start, stop):
            run_operation(self.program.operations[index], frame, self.weights, self.tables)
            self._watch(index + 1, [frame], watched, seen)
        if self.logits is not None and (logits := frame.buffers.pop("logits", None)) is not None:
            rows = self.logits[number * len(logits) :][: len(logits)]
            rows.copy_(logits)

    def _watch(self, after: int, frames: list[Frame], watched: dict[int, int], seen: dict) -> None:
        if after in watched:
            seen.setdefault(watched[after], []).extend(frame.buffers["x"] for frame in frames)

    def _whole(self, op: Operation, step: Step, frames: list[Frame], plans: Plans) -> None:
        if isinstance(op, Attend):
            key = (op.group, op.attention)
            if key not in plans:
                plans[key] = self.attention.plan(op, step)
            q, k, v = (_joined(frames, name) for name in (op.q, op.k, op.v))
            out = self.attention.attend(op, plans[key], step, q, k, v)
        else:
            assert isinstance(op, Expert)
            x, routes = (_joined(frames, name)[: step.count] for name in (op.x, op.routes))
            mixed = experts(op, x, routes, self.weights, self.row_tile)
            out = F.pad(mixed, (0, 0, 0, len(step.tokens_t) - step.count))
        _give(frames, op.out, out)

    def _keep(self, op: Keep, step: Step, frames: list[Frame]) -> list[Frame]:
        count = len(step.kept)
        pad = padded_count(count, self.row_tile) - count
        chosen = F.pad(step.kept, (0, pad))
        x = _joined(frames, op.x).index_select(0, step.kept)
        kept = self._tiles(step.tokens_t[chosen], step.positions_t[chosen]) if count else []
        _give(kept, op.x, F.pad(x, (0, 0, 0, pad)))
        return kept

    def _result(self, step: Step) -> Tensor:
        if self.logits is None:
            return torch.empty(0, self.program.spec.vocab)
        return self.logits[: len(step.kept)]


def _joined(frames: list[Frame], name: str) -> Tensor:
    return frames[0].buffers[name] if len(frames) == 1 else torch.cat([frame.buffers[name] for frame in frames])


def _give(frames: list[Frame], name: str, value: Tensor) -> None:
    at = 0
    for frame in frames:
        rows = len(frame.tokens_t)
        frame.buffers[name] = value[at : at + rows]
        at += rows


def _cut(step: Step, reads: dict[int, list[int]], seen: dict[int, list[Tensor]]) -> dict:
    hidden = {}
    for state, rows in reads.items():
        x = torch.cat(seen[state]).float()
        for row in rows:
            start = step.starts[row]
            hidden[row, state] = x[start : start + len(step.batch.rows[row].tokens)].numpy()
    return hidden


def _spans(operations: tuple[Operation, ...]) -> tuple[tuple[int, int], ...]:
    """Runs of operations that are tiled, and between them the single ones that are not."""
    spans, start = [], 0
    for index, op in enumerate(operations):
        if isinstance(op, WHOLE_BATCH):
            if index > start:
                spans.append((start, index))
            spans.append((index, index + 1))
            start = index + 1
    if start < len(operations):
        spans.append((start, len(operations)))
    return tuple(spans)
