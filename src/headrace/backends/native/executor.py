"""The native executor: a spec.Executor on C++ kernels, bit-exact by construction."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from headrace.backends.advice import nearest_plan
from headrace.backends.check import check
from headrace.backends.native import _kernels
from headrace.backends.native.adapters import Adapters
from headrace.backends.native.arena import Arena
from headrace.backends.native.cache import NativeWeights, WeightPlan
from headrace.backends.native.program import Builder, buffer_widths
from headrace.backends.rotary import distinct_ropes, table_bytes
from headrace.spec.adapter import Adapter
from headrace.spec.batch import Batch, PageCopy
from headrace.spec.errors import EngineStopped
from headrace.spec.executor import Guarantees, Limits, StepResult, WeightStore
from headrace.spec.ledger import Ledger, Reservation, Tag
from headrace.spec.model import PAGE_TOKENS, Attention, ModelSpec
from headrace.spec.program import compile_program
from headrace.spec.sampling import Sampling

StateType: TypeAlias = Literal["fp16", "fp32", "int8"]
STATE_TYPES = get_args(StateType)
"""In the order of kernels.h."""


@dataclass(frozen=True, slots=True)
class Numerics:
    """What decides the bits of a loaded model.

    `activations`: their bits where they meet quantised weights, in groups of 32 that share a scale; with 16 a
    model answers as in fp32, 8 are quicker (and only in the layers: routers and the head keep 16). `state`: type
    of keys and values; int8 codes share a scale in each head at each position. `weights`: how float weights are
    stored ("auto": as they are).
    """

    activations: Literal["int16", "int8"] = "int16"
    state: StateType = "fp16"
    weights: Literal["auto", "int8", "int4", "bf16"] = "auto"

    @property
    def planes(self) -> int:
        return 2 if self.activations == "int16" else 1

    def profile(self, rounded: Iterable[str] = ()) -> str:
        """`rounded`: ggml types that no kernel reads, rounded to Q8_0 when they were loaded."""
        weights = "" if self.weights == "auto" else f"/weights-{self.weights}"
        weights += "".join(f"/{kind}-as-Q8_0" for kind in sorted(rounded))
        activations = "int16-g32" if self.activations == "int16" else "int8-g32-head-int16"
        return f"native/{activations}/kv-{self.state}/blocks{PAGE_TOKENS}{weights}"


class NativeExecutor:
    """Runs batches of one model on the CPU.

    Raises PlanRejected when the ledger has no room, before that memory is taken; InvalidRequest from `submit`
    for a batch outside the limits. `isa`: an instruction set of `instruction_sets()`; by default the best.
    """

    def __init__(
        self,
        spec: ModelSpec,
        weights: WeightStore,
        limits: Limits,
        ledger: Ledger,
        numerics: Numerics = Numerics(),
        threads: int | None = None,
        isa: str | None = None,
    ) -> None:
        self.spec, self.limits, self.numerics = spec, limits, numerics
        self._ledger, self._store, self._held = ledger, weights, list[Reservation]()
        self._program, self._groups = compile_program(spec), spec.state_groups()
        self._isa = isa or instruction_sets()[0]
        try:
            self._load(weights, threads or default_threads())
        except BaseException:
            self.close()
            raise
        self.guarantees = Guarantees("native", numerics.profile(self._weights.rounded), True)

    def _load(self, store: WeightStore, threads: int) -> None:
        limits, program, longest = self.limits, self._program, longest_sequence(self.spec, self.limits)
        plan, widths = WeightPlan(store, program.operations, self.numerics.weights), buffer_widths(program)
        model = _kernels.Model(
            self._isa, threads, limits.tokens, limits.logits, longest // PAGE_TOKENS, list(widths.values())
        )
        builder = Builder(model, program, plan, self.numerics.planes, longest)
        builder.build()
        packing = self._reserve(plan, model.workspace_bytes(), longest)
        self._weights = plan.load(self._ledger)
        self._ledger.release(packing)
        builder.fill(self._weights)
        self._logits = np.zeros((limits.logits, logit_count(self.spec)), np.float32)
        self._arena = Arena(sum(state_bytes(self.spec, limits, self.numerics.state)))
        self._state = self._make_state(model)
        model.prepare(self._logits)
        self._ends, self._kinds = tuple(builder.ends), (*builder.kinds, "waking threads")
        self._x = list(widths).index("x")
        self._adapters = Adapters(model, self.spec, builder.products(), self._ledger)
        self._model: _kernels.Model | None = model
        self._arena.back()

    def _reserve(self, plan: WeightPlan, activations: int, longest: int) -> Reservation:
        """Reserves everything; what is given back when the weights are loaded is returned."""
        pages = state_bytes(self.spec, self.limits, self.numerics.state)
        tables = table_bytes(distinct_ropes(self._program.operations), longest)
        later: list[tuple[Tag, str, int]] = [
            ("workspace", "activations", activations),
            ("workspace", "logits", 4 * self.limits.logits * logit_count(self.spec)),
            ("workspace", "rotary tables", tables),
        ]
        later += [("state", f"KV pages, group {group}", nbytes) for group, nbytes in enumerate(pages)]
        idle = sum(nbytes for _, _, nbytes in later) - plan.passing
        packing: tuple[Tag, str, int] = ("weights", "packing buffer", max(-idle, 0))
        growing = tables if longest < self.spec.context else 0
        advice = nearest_plan(self._ledger.limit, min(self.limits.pages), sum(pages), growing, idle)
        *held, passing = self._ledger.reserve_all([*plan.wanted, *later, packing], advice)
        self._held += held
        return passing

    def _make_state(self, model: _kernels.Model) -> list[tuple[np.ndarray, ...]]:
        """Keys and values of each layer, [pages, bytes of a page] of either."""
        groups = {layer: group for group, state in enumerate(self._groups) for layer in state.layers}
        arenas: list[tuple[np.ndarray, ...]] = []
        for index, layer in enumerate(self.spec.layers):
            pages = self.limits.pages[groups[index]]
            keys, values = (self._arena.take(pages * size) for size in page_bytes(layer.attention, self.numerics.state))
            model.add_state(keys, values, STATE_TYPES.index(self.numerics.state))
            arenas.append((keys.reshape(pages, -1), values.reshape(pages, -1)))
        return arenas

    def submit(self, batch: Batch) -> StepResult:
        """Runs the step at once; raises InvalidRequest for a batch outside the limits."""
        model = self._running()
        check(batch, self.spec, self.limits, self._adapters)
        self._copy(batch.copies)
        tokens: list[int] = []
        kept: list[int] = []
        rows: list[tuple[int, int]] = []
        for row in batch.rows:
            if row.logits_from is not None:
                kept += range(len(tokens) + row.logits_from, len(tokens) + len(row.tokens))
            rows.append((len(row.tokens), row.start))
            tokens += row.tokens
        pages = [[row.pages[group] for row in batch.rows] for group in range(len(self.limits.pages))]
        model.begin(tokens, rows, kept, pages, self._adapters.of(batch))
        hidden = self._run(model, batch) if tokens else {}
        self._arena.used()
        return StepResult(self._logits[: len(kept)], hidden)

    def add_adapter(self, adapter: Adapter) -> None:
        """Raises ModelFileError, InvalidRequest for a name that is taken, PlanRejected where there is no room."""
        self._running()
        self._adapters.add(adapter)

    def remove_adapter(self, name: str) -> None:
        self._running()
        self._adapters.remove(name)

    def _running(self) -> _kernels.Model:
        if self._model is None:
            raise EngineStopped("The backend was closed; load the model again.")
        return self._model

    def choose(self, logits: np.ndarray, sampling: Sampling, key: tuple[int, int], position: int) -> int:
        """A spec.Chooser: the draw that headrace.engine.sampling.choose_token makes."""
        assert self._model is not None
        return int(
            self._model.choose(
                logits, sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p, key, position
            )
        )

    def kernel_seconds(self) -> dict[str, float]:
        """Wall seconds that each kind of kernel has taken since the last call."""
        assert self._model is not None
        seconds = dict.fromkeys(self._kinds, 0.0)
        for kind, nanoseconds in zip(self._kinds, self._model.take_nanoseconds(), strict=True):
            seconds[kind] += nanoseconds / 1e9
        return seconds

    def _run(self, model: _kernels.Model, batch: Batch) -> dict[tuple[int, int], np.ndarray]:
        """Runs the program, stopping where a hidden state is asked for."""
        hidden: dict[tuple[int, int], np.ndarray] = {}
        done, wanted = 0, sorted({state for row in batch.rows for state in row.reads})
        for state in wanted:
            stop = self._ends.index(self._program.hidden_after[state]) + 1
            model.run(done, stop)
            done = stop
            x = model.buffer(self._x, batch.token_count)
            at = 0
            for index, row in enumerate(batch.rows):
                if state in row.reads:
                    hidden[index, state] = x[at : at + len(row.tokens)].copy()
                at += len(row.tokens)
        model.run(done, len(self._ends))
        return hidden

    def _copy(self, copies: tuple[PageCopy, ...]) -> None:
        for copy in copies:
            for layer in self._groups[copy.group].layers:
                for arena in self._state[layer]:
                    arena[copy.target] = arena[copy.source]

    def close(self) -> None:
        """Frees weights and arenas; a second call does nothing."""
        if getattr(self, "_model", None) is not None:
            self._store.release(self._program.operations)
            self._adapters.release()
        self._model = None
        self._state = []
        if (arena := self.__dict__.pop("_arena", None)) is not None:
            arena.close()
        self.__dict__.pop("_logits", None)
        weights: NativeWeights | None = self.__dict__.pop("_weights", None)
        if weights is not None:
            weights.release()
        while self._held:
            self._ledger.release(self._held.pop())


def instruction_sets() -> list[str]:
    """What this machine runs, best first; "portable" is always the last."""
    return list(_kernels.instruction_sets())


def default_threads() -> int:
    """Physical cores that this process may use."""
    try:
        allowed = os.sched_getaffinity(0)
        siblings = set()
        for cpu in allowed:
            with open(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") as file:
                siblings.add(file.read())
        return len(siblings)
    except (AttributeError, OSError):
        return max((os.cpu_count() or 2) // 2, 1)


def page_bytes(attention: Attention, state: StateType) -> tuple[int, int]:
    """Bytes of one layer's keys and of its values in a page; a head's values are padded to whole vectors."""
    padded = -(-attention.head_dim // 16) * 16
    value, scale = {"fp16": (2, 0), "fp32": (4, 0), "int8": (1, 4)}[state]
    rows = attention.kv_heads * PAGE_TOKENS
    return rows * (attention.head_dim * value + scale), rows * (padded * value + scale)


def state_bytes(spec: ModelSpec, limits: Limits, state: StateType) -> tuple[int, ...]:
    """Bytes of each state group's pages."""
    return tuple(
        sum(count * sum(page_bytes(spec.layers[layer].attention, state)) for layer in group.layers)
        for group, count in zip(spec.state_groups(), limits.pages, strict=True)
    )


def longest_sequence(spec: ModelSpec, limits: Limits) -> int:
    """Positions of the longest sequence, in whole pages: as many as there are pages for, or the context."""
    return min(min(limits.pages), -(-spec.context // PAGE_TOKENS)) * PAGE_TOKENS


def logit_count(spec: ModelSpec) -> int:
    """Logits a row; an encoder has none."""
    return spec.vocab if spec.causal else 0


__all__ = ["NativeExecutor", "Numerics", "default_threads", "instruction_sets", "state_bytes"]
