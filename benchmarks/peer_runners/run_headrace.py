"""Headrace's own runner: the real engine with its scheduler and sampler, through the sequence verbs."""

from __future__ import annotations

import statistics
import time
from typing import Any

from protocol import ARRIVALS, LOADED_ROWS, Cell, Runner, Settings, serve, window_rate

from headrace import Engine, Sampling, Stop
from headrace.engine.sequence import Mark, SequenceHandle
from headrace.spec.events import StepEvent
from headrace.spec.options import EngineOptions

GREEDY = Sampling(temperature=0)


class Headrace(Runner):
    """Decoding rows are kept open and rewound, so that every round decodes over the same context."""

    def __init__(self, settings: Settings) -> None:
        options: dict[str, Any] = {
            "threads": settings.threads,
            "running": max(settings.rows, 16),
            "state_memory": settings.cache_mib,
            "context": settings.length,
        }
        options |= {name: int(value) if value.isdigit() else value for name, value in settings.options.items()}
        self.engine = Engine.load(settings.model, EngineOptions(**options))
        guarantees = self.engine.guarantees
        self.version, self.weights = f"{guarantees.backend} ({guarantees.profile})", "as in the file"
        self._kept: list[tuple[SequenceHandle, Mark]] = []
        self._cell: Cell | None = None

    def prepare(self, cell: Cell, prompts: list[list[int]]) -> None:
        self._forget()
        if cell.measure != "decode":
            self.prefill(cell, prompts)
            return
        rows = self._opened(prompts)
        extend_all(rows, 1)
        self._kept, self._cell = [(row, row.mark()) for row in rows], cell

    def decode(self, cell: Cell, prompts: list[list[int]]) -> float:
        """The window holds the steps in which every row decodes; what lies between those steps counts."""
        assert cell == self._cell, "prepare the cell first"
        for row, mark in self._kept:
            row.rewind(mark)
        events: list[StepEvent] = []
        stop_listening = self.engine.events.listen(events.append)
        try:
            extend_all([row for row, _ in self._kept], cell.new)
        finally:
            stop_listening()
        whole = [event for event in events if event.decode_rows == cell.batch]
        marks, count = [], 0
        for event in whole:
            count += event.sampled_tokens
            marks.append((event.at, count))
        return window_rate(marks, cell)

    def prefill(self, cell: Cell, prompts: list[list[int]]) -> float:
        rows = self._opened(prompts)
        began = time.perf_counter()
        extend_all(rows, cell.new)
        seconds = time.perf_counter() - began
        for row in rows:
            row.drop()
        return sum(map(len, prompts)) / seconds

    def ttft(self, cell: Cell, prompts: list[list[int]]) -> float:
        """Arrivals fall anywhere within a step."""
        self._forget()
        loaded = self._opened(prompts[:LOADED_ROWS])
        extend_all(loaded, 1)
        decoding = [row.extend(Stop(tokens=cell.new, ignore_eos=True)) for row in loaded]
        for extension in decoding:
            next(iter(extension))
        waits = []
        for prompt in prompts[LOADED_ROWS : LOADED_ROWS + ARRIVALS]:
            with self.engine.open_now(prompt, seed=0, sampling=GREEDY) as row:
                began = time.perf_counter()
                row.extend(Stop(tokens=1, ignore_eos=True)).result()
                waits.append(time.perf_counter() - began)
        if any(extension.done() for extension in decoding):
            raise RuntimeError("the load ended before the last arrival; give the cell more new tokens")
        for row in loaded:
            row.drop()
        return statistics.mean(waits)

    def close(self) -> None:
        self.engine.close()

    def _opened(self, prompts: list[list[int]]) -> list[SequenceHandle]:
        return [self.engine.open_now(prompt, seed=0, sampling=GREEDY) for prompt in prompts]

    def _forget(self) -> None:
        for row, _ in self._kept:
            row.drop()
        self._kept, self._cell = [], None
        self.engine.clear_cache()


def extend_all(rows: list[SequenceHandle], tokens: int) -> None:
    stop = Stop(tokens=tokens, ignore_eos=True)
    for extension in [row.extend(stop) for row in rows]:
        extension.result()


if __name__ == "__main__":
    serve(Headrace)
