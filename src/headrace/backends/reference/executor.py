"""The reference executor: a spec.Executor on torch, bit-exact by fixed tiles and blocks."""

from __future__ import annotations

import threading
from dataclasses import replace

import torch

from headrace.backends.advice import nearest_plan
from headrace.backends.check import check_new_adapter
from headrace.backends.reference.adapters import LoadedAdapter, adapter_bytes
from headrace.backends.reference.attention import PagedAttention, arena_floats
from headrace.backends.reference.interpreter import Interpreter
from headrace.backends.reference.pages import Pages, state_bytes
from headrace.backends.reference.rotary import RotaryTables
from headrace.backends.reference.step import padded_count, prepare
from headrace.backends.reference.verify import products_independent, rows_independent
from headrace.backends.reference.weights import DTYPES, WeightPlan, plan_weights
from headrace.backends.rotary import distinct_ropes, table_bytes
from headrace.spec.adapter import Adapter
from headrace.spec.batch import Batch
from headrace.spec.errors import EngineStopped, InvalidRequest
from headrace.spec.executor import Guarantees, Limits, StepResult, WeightStore
from headrace.spec.ledger import Ledger, Reservation, Tag
from headrace.spec.model import PAGE_TOKENS, ModelSpec
from headrace.spec.program import Program, compile_program

ROW_TILE = 8
"""Rows of every matrix product. The same for one token as for a full batch, or their sums would differ.
Eight packed rows run at nine tenths of the speed of 32, and a lone token wastes seven rows, not 31."""


class ReferenceExecutor:
    """Runs batches of one model on the CPU.

    Raises PlanRejected when the ledger has no room, before memory is taken; InvalidRequest from
    `submit` for a batch outside the limits. `row_tile` None switches fixed tiling off, and with it
    the promise of equal bits; tests use it to show that the promise rests on the tiling.
    """

    def __init__(
        self,
        spec: ModelSpec,
        weights: WeightStore,
        limits: Limits,
        ledger: Ledger,
        dtype: str = "fp32",
        threads: int | None = None,
        row_tile: int | None = ROW_TILE,
    ) -> None:
        if dtype not in DTYPES:
            raise InvalidRequest(f"dtype is {dtype!r}; choose one of {', '.join(DTYPES)}.", "dtype")
        self.spec, self.limits, self.row_tile = spec, limits, row_tile
        self._ledger, self._store, self._threads = ledger, weights, threads or torch.get_num_threads()
        self._thread: int | None = None
        self._held: list[Reservation] = []
        self._adapters: dict[str, Reservation] = {}
        self._program = compile_program(spec)
        try:
            self._load(weights, DTYPES[dtype])
        except BaseException:
            self.close()
            raise
        self.guarantees = Guarantees("reference", _profile(dtype, row_tile), self._exact)

    def _load(self, store: WeightStore, dtype: torch.dtype) -> None:
        self._use_threads()
        program, length = self._program, longest(self.limits)
        with torch.inference_mode():
            plan = plan_weights(store, program.operations, dtype, self.row_tile)
            decoding = self._reserve(plan, dtype)
            weights = plan.load()
            self._ledger.release(decoding)
            self._pages = Pages(self.spec, self.limits.pages, dtype)
            attentions = [layer.attention for layer in self.spec.layers]
            attention = PagedAttention(attentions, self._pages, -(-length // PAGE_TOKENS))
            tables = RotaryTables(program.operations, length)
            logits = torch.zeros(padded_count(self.limits.logits, self.row_tile), self.spec.vocab)
            self._exact = rows_independent(program, weights, self.row_tile)
        self._interpreter: Interpreter | None = Interpreter(
            program, weights, tables, attention, logits if self.spec.causal else None, self.row_tile
        )

    def _reserve(self, plan: WeightPlan, dtype: torch.dtype) -> Reservation:
        """Reserves everything before anything is loaded; what is given back when the weights are is returned."""
        state = state_bytes(self.spec, self.limits.pages, dtype.itemsize)
        idle = sum(state) - plan.passing  # pages are allocated last
        wanted: list[tuple[Tag, str, int]] = [
            ("workspace", "activations", workspace_bytes(self._program, self.limits, dtype, self.row_tile))
        ]
        wanted += [("weights", "weights", plan.nbytes)] if plan.nbytes else []
        wanted += [("state", f"KV pages, group {group}", nbytes) for group, nbytes in enumerate(state)]
        wanted += [("weights", "decoding buffer", max(-idle, 0))]
        tables = table_bytes(distinct_ropes(self._program.operations), longest(self.limits))
        advice = nearest_plan(self._ledger.limit, min(self.limits.pages), sum(state), tables, idle)
        *held, decoding = self._ledger.reserve_all(wanted, advice)
        self._held += held
        return decoding

    def submit(self, batch: Batch) -> StepResult:
        """Runs the step at once; raises InvalidRequest for a batch outside the limits."""
        interpreter = self._running()
        self._use_threads()
        with torch.inference_mode():
            step = prepare(batch, self.spec, self.limits, self.row_tile, interpreter.adapters)
            self._pages.copy(batch.copies)
            return interpreter.run(step)

    def add_adapter(self, adapter: Adapter) -> None:
        """Raises ModelFileError, InvalidRequest for a name that is taken, PlanRejected where there is no room.

        Where a row's bits depend on its company in one of the adapter's products, `guarantees` say so from now on.
        """
        interpreter = self._running()
        check_new_adapter(adapter, self.spec, interpreter.adapters)
        what, nearest = f"adapter {adapter.name}", "raise --memory, or remove an adapter"
        self._adapters[adapter.name] = self._ledger.reserve("weights", what, adapter_bytes(adapter), lambda _: nearest)
        self._use_threads()
        with torch.inference_mode():
            loaded = LoadedAdapter.of(adapter, self.row_tile)
            exact = products_independent(loaded.matrices(), self.row_tile)
        interpreter.adapters[adapter.name] = loaded
        self.guarantees = replace(self.guarantees, bit_exact=self.guarantees.bit_exact and exact)

    def remove_adapter(self, name: str) -> None:
        del self._running().adapters[name]
        self._ledger.release(self._adapters.pop(name))

    def _running(self) -> Interpreter:
        if self._interpreter is None:
            raise EngineStopped("The backend was closed; load the model again.")
        return self._interpreter

    def close(self) -> None:
        """Frees weights and arenas; a second call does nothing."""
        if getattr(self, "_interpreter", None) is not None:
            self._store.release(self._program.operations)
        self._interpreter = None
        self.__dict__.pop("_pages", None)
        self._held += self._adapters.values()
        self._adapters = {}
        while self._held:
            self._ledger.release(self._held.pop())

    def _use_threads(self) -> None:
        """torch keeps the number for each calling thread apart; the bits may depend on it, so it is one."""
        if self._thread != threading.get_ident():
            torch.set_num_threads(self._threads)
            self._thread = threading.get_ident()


def longest(limits: Limits) -> int:
    """Most positions of one sequence that the pages can hold."""
    return min(limits.pages) * PAGE_TOKENS


def workspace_bytes(program: Program, limits: Limits, dtype: torch.dtype, row_tile: int | None) -> int:
    """Activations of a full step, attention arenas, rotary tables and logits.

    Every named buffer of every tile may be alive at once; Attend joins q, k, v and its output.
    """
    spec, widths = program.spec, dict(program.widths)
    vocab = widths.pop("logits", 0)
    rows = padded_count(limits.tokens, row_tile)
    tile = min(rows, row_tile or rows)
    joined = sum(widths[name] for name in "qkva") + widths["q"]
    activations = rows * (sum(widths.values()) + joined) * max(dtype.itemsize, 4) + 4 * tile * 4 * max(widths.values())
    attentions = [layer.attention for layer in spec.layers]
    arenas = 4 * sum(arena_floats(attentions, -(-longest(limits) // PAGE_TOKENS)))
    tables = table_bytes(distinct_ropes(program.operations), longest(limits))
    logits = 4 * vocab * (padded_count(limits.logits, row_tile) + tile)
    return activations + arenas + tables + logits + _expert_bytes(spec, rows, tile)


def _expert_bytes(spec: ModelSpec, rows: int, tile: int) -> int:
    mixtures = [layer.mlp for layer in spec.layers if layer.mlp.experts]
    if not mixtures:
        return 0
    top_k, width = max(m.top_k for m in mixtures), max(m.width for m in mixtures)
    return 4 * (4 * rows * top_k * spec.hidden + 3 * tile * width)


def _profile(dtype: str, row_tile: int | None) -> str:
    rows = "any-rows" if row_tile is None else f"rows{row_tile}"
    return f"torch-{dtype}/{rows}/blocks{PAGE_TOKENS}"
