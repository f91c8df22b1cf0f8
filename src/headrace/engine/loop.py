"""The engine's thread: it runs commands between steps, and steps while there is work."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeAlias

from headrace.engine.answer import Deliveries
from headrace.schedule.core import Core
from headrace.schedule.sequence import Work
from headrace.spec.batch import Batch
from headrace.spec.errors import EngineStopped, PagesExhausted
from headrace.spec.events import EventLog, StepEvent
from headrace.spec.executor import Executor, StepResult

Command: TypeAlias = Callable[[Core], None]


class StepLoop:
    """Owns the core: nothing else touches it but through `post`. `finished` counts the works that ended."""

    def __init__(self, core: Core, executor: Executor, events: EventLog) -> None:
        self.deliveries = Deliveries()
        self.finished = 0
        self._core, self._executor, self._events = core, executor, events
        self._inbox: queue.SimpleQueue[tuple[Command, Future[None]]] = queue.SimpleQueue()
        self._failure: str | None = None
        self._closing = self._stopped = False
        self._gate = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="headrace-engine", daemon=True)
        self._thread.start()

    def post(self, command: Command) -> Future[None]:
        """Runs `command(core)` in the loop's thread, after those posted before. Raises EngineStopped."""
        done: Future[None] = Future()
        with self._gate:
            if self._closing or self._stopped:
                raise EngineStopped(f"The engine has stopped ({self._failure or 'closed'}); load the model again.")
            self._inbox.put((command, done))
        return done

    def ended(self) -> str | None:
        """None while the loop runs, else why it does not."""
        if self._failure is not None:
            return self._failure
        return None if self._thread.is_alive() else "the engine is closed"

    def close(self) -> bool:
        """Stops the loop, failing what is open; whether this call was the first."""
        with self._gate:
            first, self._closing = not self._closing, True
            self._inbox.put((lambda core: None, Future()))
        if first:
            self._thread.join()
        return first

    def _run(self) -> None:
        try:
            while not self._closing:
                self._receive(wait=not self._core.busy)
                if self._core.busy and not self._closing:
                    self._step()
        except BaseException as error:  # whatever ended the loop, nobody may wait forever
            self._failure = f"{type(error).__name__}: {error}"
        self._stop()

    def _receive(self, wait: bool) -> None:
        """Runs the commands that have come so far; waits for one with `wait`."""
        if not wait and self._inbox.empty():
            return
        for _ in range(max(self._inbox.qsize(), 1)):
            command, done = self._inbox.get()
            try:
                command(self._core)
                done.set_result(None)
            except Exception as error:
                done.set_exception(error)
        self.deliveries.send()

    def _step(self) -> None:
        core, began = self._core, time.perf_counter()
        preempted, admitted = core.state.preempted, core.admit()
        for work in admitted:
            work.owner.admitted(work)
        cached = sum(work.sequence.computed for work in admitted)
        batch = core.schedule()
        if not batch.rows:
            self._refuse_oldest()
            return
        scheduled = time.perf_counter()
        result = self._executor.submit(batch).result()
        ran = time.perf_counter()
        before = core.unfinished
        drawn = self._accept(batch, result)
        finished = before - core.unfinished
        self.finished += finished
        counts = (len(admitted), finished, core.state.preempted - preempted, drawn, cached)
        self._log(batch, counts, (scheduled - began, ran - scheduled, time.perf_counter() - ran))
        self.deliveries.send()

    def _accept(self, batch: Batch, result: StepResult) -> int:
        """Gives each row's output to its owner; a failure there fails that request alone. Returns tokens drawn."""
        core, alive = self._core, dict(self._core.commit(batch))
        drawn = end = 0
        for index, row in enumerate(batch.rows):
            begin, end = end, end + row.logit_count
            if (work := alive.get(index)) is None:
                continue
            logits = result.logits[begin:end]
            hidden = result.hidden.get((index, row.reads[0])) if row.reads else None
            produced = work.produced
            try:
                work.owner.accept(core, work, row, logits, hidden)
            except Exception as error:
                self._fail(work, error)
            drawn += work.produced - produced
        return drawn

    def _fail(self, work: Work, error: Exception) -> None:
        core, sequence = self._core, work.sequence
        core.finish(work)
        if sequence.id in core.sequences:
            core.truncate(sequence, len(sequence.tokens) - work.produced)
        work.owner.fail(error)

    def _refuse_oldest(self) -> None:
        """Nothing can run although all that may give up pages did: pinned sequences hold the rest."""
        oldest = min(self._core.works(), key=lambda work: work.order)
        self._fail(
            oldest, PagesExhausted("Pinned sequences hold the pages this request needs; drop one and ask again.")
        )
        self.deliveries.send()

    def _stop(self) -> None:
        """Fails everything that is open or still comes in."""
        with self._gate:
            self._stopped = True
        self._receive(wait=False)
        error = EngineStopped(f"The engine has stopped ({self._failure or 'closed'}); load the model again.")
        for work in self._core.works():
            work.owner.fail(error)
            with contextlib.suppress(Exception):  # the core itself may be what failed
                self._core.finish(work)
        self.deliveries.send()

    def _log(self, batch: Batch, counts: tuple[int, int, int, int, int], seconds: tuple[float, float, float]) -> None:
        admitted, finished, preempted, drawn, cached = counts
        core, store = self._core, self._core.store
        text_seconds, self.deliveries.text_seconds = self.deliveries.text_seconds, 0.0
        spans = tuple([(row.sequence, row.phase, len(row.tokens)) for row in batch.rows])
        decodes = [count for _, phase, count in spans if phase == "decode"]
        self._events.add(
            StepEvent(
                step=batch.step,
                decode_rows=len(decodes),
                decode_tokens=sum(decodes),
                prefill_tokens=batch.token_count - sum(decodes),
                logit_rows=batch.logit_count,
                sampled_tokens=drawn,
                running=len(core.state.running),
                waiting=len(core.state.waiting),
                pages_used=store.used,
                pages_cached=store.cached,
                pages_total=store.total,
                admitted=admitted,
                finished=finished,
                preempted=preempted,
                cached_tokens=cached,
                schedule_seconds=seconds[0],
                run_seconds=seconds[1],
                sample_seconds=seconds[2],
                text_seconds=text_seconds,
                at=time.time(),
                sequences=spans,
            )
        )
