"""Offers an engine four times the requests its pages hold, with random lengths and cancellations, and watches
its anonymous memory. Run as a process of its own, so that what came before does not count:

    python tests/engine/overload.py MODEL REQUESTS [--backend native] [--figures FILE]
"""

from __future__ import annotations

import argparse
import json
import random
import re
import threading
import time
from importlib import import_module
from pathlib import Path

from headrace.engine.engine import Engine
from headrace.engine.sequence import SequenceHandle
from headrace.spec.errors import Overloaded
from headrace.spec.options import EngineOptions
from headrace.spec.sampling import Sampling, Stop

PAGES_MEMORY = {"reference": 48, "native": 24}
"""MiB for the same 68 pages of smollm2-135m."""
QUEUE, CONTEXT, OVERLOAD = 50, 1024, 4
TRIES = 6
"""How often a client asks: when refused again after the time it is told, then after twice that, and so on."""

OUTCOMES = ("stop", "length", "cancelled", "refused", "failed")


def anonymous_bytes() -> int:
    """Resident memory of this process that no file backs."""
    status = Path("/proc/self/status").read_text()
    match = re.search(r"RssAnon:\s+(\d+) kB", status)
    assert match is not None
    return int(match[1]) * 1024


class PeakWatch(threading.Thread):
    """Samples anonymous memory every few milliseconds until stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.01):
            self.peak = max(self.peak, anonymous_bytes())

    def stop(self) -> int:
        self._over.set()
        self.join()
        return max(self.peak, anonymous_bytes())


class Load:
    """Keeps requests for `OVERLOAD` times the pages outstanding until `count` have been offered."""

    def __init__(self, engine: Engine, count: int, rng: random.Random) -> None:
        self.engine, self.count, self.rng = engine, count, rng
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self.tokens = self.wanted_pages = 0
        self._lock = threading.Condition()

    def run(self) -> None:
        capacity = OVERLOAD * int(self.engine.stats()["pages_total"])
        threads = []
        for _ in range(self.count):
            prompt, new = self.rng.randint(4, 32), self.rng.randint(1, 24)
            pages = -(-(prompt + new) // 16)
            with self._lock:
                self._lock.wait_for(lambda: self.wanted_pages < capacity)
                self.wanted_pages += pages
            cancel = self.rng.random() < 0.3
            ids = [self.rng.randint(5, self.engine.spec.vocab - 1) for _ in range(prompt)]
            thread = threading.Thread(target=self._one, args=(ids, new, cancel, pages))
            thread.start()
            threads.append(thread)
        for thread in threads:
            thread.join()

    def _one(self, prompt: list[int], new: int, cancel: bool, pages: int) -> None:
        outcome, made = "failed", 0
        try:
            outcome, made = self._ask(prompt, new, cancel)
        finally:
            with self._lock:
                self.outcomes[outcome] += 1
                self.tokens += made
                self.wanted_pages -= pages
                self._lock.notify()

    def _ask(self, prompt: list[int], new: int, cancel: bool) -> tuple[str, int]:
        for number in range(TRIES):
            with self.engine.open_now(prompt, seed=1) as sequence:
                try:
                    return self._generate(sequence, new, cancel)
                except Overloaded as refusal:
                    assert "try again" in str(refusal)
                    time.sleep(refusal.retry_after * 2**number)
        return "refused", 0

    @staticmethod
    def _generate(sequence: SequenceHandle, new: int, cancel: bool) -> tuple[str, int]:
        extension = sequence.extend(Stop(tokens=new, ignore_eos=True), Sampling(temperature=1.0))
        if cancel:
            for index, _ in enumerate(extension):
                if index == new // 3:
                    break
            extension.cancel()
        step = extension.result()
        return step.finish_reason, len(step.token_ids)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("requests", type=int)
    parser.add_argument("--backend", choices=PAGES_MEMORY, default="reference")
    parser.add_argument("--figures", type=Path)
    given = parser.parse_args()
    # What a process pays for the libraries themselves is not the engine's.
    import_module(f"headrace.backends.{given.backend}.executor")
    import_module("headrace.engine.load")

    before = anonymous_bytes()
    watch = PeakWatch()
    memory = PAGES_MEMORY[given.backend]
    options = EngineOptions(state_memory=memory, context=CONTEXT, queue=QUEUE, backend=given.backend)
    watch.start()
    with Engine.load(given.model, options) as engine:
        load = Load(engine, given.requests, random.Random(3))
        load.run()
        engine.check()
        peak, planned, stats = watch.stop() - before, engine.ledger.total, engine.stats()
    figures = {
        "requests": given.requests,
        "backend": given.backend,
        **load.outcomes,
        "tokens": load.tokens,
        "preempted": stats["preempted"],
        "pages_used_after": stats["pages_used"],
        "ledger_mib": round(planned / 2**20, 1),
        "peak_anonymous_mib": round(peak / 2**20, 1),
        "peak_over_ledger": round(peak / planned, 4),
    }
    print(json.dumps(figures))
    if given.figures:
        given.figures.write_text(json.dumps({"overload": figures}, indent=2))


if __name__ == "__main__":
    main()
