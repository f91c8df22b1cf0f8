"""llama.cpp through the shared library of llama-cpp-python: rows decode in one batch, as its own server does.

Weights are memory-mapped and repacked at load, flash attention is on, the KV cache is fp16 with a stream for
each row, logits are taken where a token is drawn, and llama.cpp's own greedy sampler draws it.
"""

from __future__ import annotations

import importlib.machinery
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from types import ModuleType

from protocol import Cell, Settings, Stepper, serve

BATCH_TOKENS = 2048
ROOM = 256


def bare_package() -> None:
    """Lets `llama_cpp.llama_cpp` load alone: the package's own __init__ imports much that costs start-up time."""
    spec = importlib.machinery.PathFinder.find_spec("llama_cpp")
    assert spec is not None and spec.submodule_search_locations
    package = ModuleType("llama_cpp")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["llama_cpp"] = package


bare_package()
import llama_cpp.llama_cpp as lib  # noqa: E402


@dataclass
class Slot:
    """A row: tokens in its KV stream, tokens still to run, tokens still to draw."""

    cached: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    wanted: int = 0
    drawn: int = 0


class LlamaCpp(Stepper):
    def __init__(self, settings: Settings) -> None:
        self.threads = settings.threads
        lib.llama_backend_init()
        self._quiet = lib.llama_log_callback(lambda level, text, data: None)
        lib.llama_log_set(self._quiet, None)
        self.model = lib.llama_model_load_from_file(settings.model.encode(), lib.llama_model_default_params())
        self.version, self.weights = version("llama-cpp-python"), "as in the file"
        self.sampler = lib.llama_sampler_init_greedy()
        self.batch = lib.llama_batch_init(BATCH_TOKENS, 0, 1)
        self.context = None
        self.slots: list[Slot] = []

    def fit(self, cell: Cell, prompts: list[list[int]]) -> None:
        """A context of exactly the rows and lengths of the cell, the way llama-server is sized."""
        if self.context is not None:
            lib.llama_free(self.context)
        longest = max(map(len, prompts)) + cell.new + 1
        params = lib.llama_context_default_params()
        params.n_ctx = len(prompts) * (-(-longest // ROOM) * ROOM)
        params.n_seq_max = len(prompts)
        params.n_batch = BATCH_TOKENS
        params.n_threads = params.n_threads_batch = self.threads
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_ENABLED
        params.kv_unified = cell.measure == "ttft"  # one step takes rows of different lengths
        self.context = lib.llama_init_from_model(self.model, params)
        if not self.context:
            raise MemoryError(f"llama.cpp has no room for {params.n_ctx} tokens")
        self.memory = lib.llama_get_memory(self.context)
        self.slots = [Slot() for _ in prompts]

    def prepare(self, cell: Cell, prompts: list[list[int]]) -> None:
        """For decode one row is prefilled and copied to the others: what a step costs depends on lengths alone."""
        self.fit(cell, prompts)
        if cell.measure != "decode":
            self.run(prompts, 2, lambda _: None)
            return
        self.run(prompts[:1], 1, lambda _: None)
        for row, prompt in enumerate(prompts):
            if row:
                lib.llama_memory_seq_cp(self.memory, 0, row, -1, -1)
            self.slots[row].cached = list(prompt)
        self.run(prompts, 2, lambda _: None)

    def add(self, row: int, prompt: list[int], new: int) -> None:
        """The last token of a cached prompt runs again, as in llama-server's prompt cache."""
        slot = self.slots[row]
        keep = len(prompt) - 1 if slot.cached[: len(prompt)] == prompt else 0
        lib.llama_memory_seq_rm(self.memory, row, keep, -1)
        self.slots[row] = Slot(prompt[:keep], prompt[keep:], new)

    def step(self) -> dict[int, int]:
        """Decoding rows first, then prompts, up to a batch; a row draws when its last token is in."""
        size, outputs = 0, []
        busy = sorted((r for r, s in enumerate(self.slots) if s.wanted), key=lambda r: len(self.slots[r].waiting) > 1)
        for row in busy:
            slot = self.slots[row]
            now = slot.waiting[: BATCH_TOKENS - size]
            if not now:
                break
            self._put(row, now, size, last=len(now) == len(slot.waiting))
            size += len(now)
            slot.cached += now
            del slot.waiting[: len(now)]
            if not slot.waiting:
                outputs.append((row, size - 1))
        self.batch.n_tokens = size
        if (code := lib.llama_decode(self.context, self.batch)) != 0:
            raise RuntimeError(f"llama_decode returned {code}")
        return {row: self._draw(row, index) for row, index in outputs}

    def _put(self, row: int, tokens: list[int], at: int, last: bool) -> None:
        start, batch = len(self.slots[row].cached), self.batch
        for offset, token in enumerate(tokens):
            index = at + offset
            batch.token[index] = token
            batch.pos[index] = start + offset
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = row
            batch.logits[index] = 0
        batch.logits[at + len(tokens) - 1] = last

    def _draw(self, row: int, index: int) -> int:
        slot = self.slots[row]
        slot.waiting = [lib.llama_sampler_sample(self.sampler, self.context, index)]
        slot.drawn += 1
        if slot.drawn == slot.wanted:
            slot.wanted, slot.waiting = 0, []
        return slot.drawn


if __name__ == "__main__":
    serve(LlamaCpp)
