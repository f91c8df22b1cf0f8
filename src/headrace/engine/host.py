"""The far side of a RemoteEngine: one process that runs an Engine and nothing else.

Messages come over a pipe in the order of the verbs; what a step produced goes back as one message.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from headrace.engine.answer import Answer, Deliveries, Extension, Step, Token
from headrace.engine.engine import Engine
from headrace.engine.sequence import Mark, SequenceHandle
from headrace.spec.errors import EngineStopped, HeadraceError
from headrace.spec.events import StepEvent
from headrace.spec.options import EngineOptions


@dataclass(slots=True)
class News:
    """What changed since the last message. `extensions`: (request, fresh tokens, its end where it came)."""

    extensions: list[tuple[int, list[Token], Step | Exception | None]]
    events: list[StepEvent]
    stats: dict[str, int | float]
    healthy: str | None


class Outbox(threading.Thread):
    """Sends in a thread of its own, so that a slow reader never holds up a step."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__(daemon=True)
        self._pipe = pipe
        self._queue: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self.start()

    def put(self, kind: str, content: Any) -> None:
        self._queue.put((kind, content))

    def run(self) -> None:
        while True:
            kind, content = self._queue.get()
            try:
                self._pipe.send((kind, content))
            except Exception:
                os._exit(1)  # the reader is gone, or would wait for what cannot be sent


class HostDeliveries(Deliveries):
    """Reports a step's news to the outbox instead of waking readers."""

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host

    def send(self) -> None:
        extensions, self._extensions = self._extensions, []
        self._host.report(dict.fromkeys(extensions))


class Host:
    """Holds the engine, and its handles and running requests by the other side's numbers."""

    def __init__(self, engine: Engine, outbox: Outbox) -> None:
        self.engine, self._outbox = engine, outbox
        self._handles: dict[int, SequenceHandle] = {}
        self._requests: dict[Extension, int] = {}
        self._by_number: dict[int, Answer[Any]] = {}
        self._events: list[StepEvent] = []
        self._reported: tuple[dict[str, int | float], str | None] | None = None
        self._lock = threading.Lock()
        engine.events.listen(self._events.append)
        engine._loop.deliveries = HostDeliveries(self)

    def report(self, extensions: dict[Extension, None]) -> None:
        """Called in the engine thread after each step and command, and for an extend that ended unnumbered."""
        with self._lock:
            fresh = [self._progress(e) for e in extensions if e in self._requests]
            events, self._events[:] = list(self._events), []
            state = (self.engine.stats(), self.engine.healthy())
            if fresh or events or state != self._reported:
                self._reported = state
                self._outbox.put("news", News(fresh, events, *state))

    def _progress(self, extension: Extension) -> tuple[int, list[Token], Step | Exception | None]:
        number, end = self._requests[extension], _end_of(extension)
        if end is not None:
            del self._requests[extension]
            self._by_number.pop(number, None)
        return number, extension.pending(), end

    # -- verbs, one method a message -----------------------------------------------------------------

    def open(self, number: int, id: int, tokens: list[int], how: dict[str, Any]) -> None:
        try:
            self._handles[id] = self.engine.open_now(tokens, **how)
        except HeadraceError as error:
            self._outbox.put("answer", (number, error))
        else:
            self._outbox.put("answer", (number, None))

    def fork(self, id: int, kid: int, aside: bool) -> None:
        self._handles[kid] = self._handles[id].fork(1, aside)[0]

    def append(self, id: int, tokens: list[int]) -> None:
        self._handles[id].append(tokens)

    def rewind(self, id: int, mark: Mark, replay: bool) -> None:
        handle = self._handles[id]
        handle.rewind(Mark(handle.id, mark.length, mark.branch, mark.forks), replay)

    def extend(self, number: int, id: int, stop: Any, sampling: Any, value: float) -> None:
        try:
            self._handles[id].value = value
            extension = self._handles[id].extend(stop, sampling)
        except Exception as error:
            self._outbox.put("news", News([(number, [], error)], [], self.engine.stats(), self.engine.healthy()))
            return
        with self._lock:
            self._requests[extension] = number
            self._by_number[number] = extension
        if extension.done():
            self.report({extension: None})

    def score(self, number: int, id: int, pieces: list[list[int]]) -> None:
        self._answer(number, lambda: self._handles[id].score(pieces))

    def read(self, number: int, id: int, what: str, pool: Any) -> None:
        self._answer(number, lambda: self._handles[id].read(what, pool))

    def cancel(self, number: int) -> None:
        if number in self._by_number:
            self._by_number[number].cancel()

    def drop(self, id: int) -> None:
        if id in self._handles:
            self._handles.pop(id).drop()

    def call(self, number: int, name: str) -> None:
        """check, clear_cache: methods without arguments."""
        try:
            self._outbox.put("answer", (number, getattr(self.engine, name)()))
        except BaseException as error:
            self._outbox.put("answer", (number, error))

    def adapt(self, number: int, verb: str, *arguments: Any) -> None:
        """add_adapter, remove_adapter; answers with what they may have changed."""
        try:
            getattr(self.engine, verb)(*arguments)
            self._outbox.put("answer", (number, adapting_facts(self.engine)))
        except BaseException as error:
            self._outbox.put("answer", (number, error))

    def _answer(self, number: int, start: Any) -> None:
        try:
            answer: Answer[Any] = start()
        except Exception as error:
            self._outbox.put("answer", (number, error))
            return
        self._by_number[number] = answer

        def settled(future: Future[Any]) -> None:
            self._by_number.pop(number, None)
            error = future.exception()
            self._outbox.put("answer", (number, future.result() if error is None else error))

        answer._future.add_done_callback(settled)


def adapting_facts(engine: Engine) -> dict[str, Any]:
    """What the other side knows and an adapter changes."""
    return {"adapters": engine.adapters, "guarantees": engine.guarantees, "ledger": engine.ledger}


def _end_of(extension: Extension) -> Step | Exception | None:
    if not extension.done():
        return None
    error = extension._future.exception()
    return extension.result() if error is None else error if isinstance(error, Exception) else RuntimeError(str(error))


def main(pipe: Connection, model: str | Path, options: EngineOptions) -> None:
    """Entry of the process: loads, says so, and serves verbs until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    outbox = Outbox(pipe)
    try:
        engine = Engine.load(model, options, lambda *step: outbox.put("progress", step))
    except Exception as error:
        pipe.send(("failed", error))
        return
    host = Host(engine, outbox)
    facts = {
        "spec": engine.spec,
        "context": engine.context,
        "model_name": engine.model_name,
        "stats": engine.stats(),
    } | adapting_facts(engine)
    outbox.put("ready", facts)
    while True:
        try:
            verb, arguments = pipe.recv()
        except (EOFError, OSError):
            os._exit(0)
        if verb == "close":
            engine.close()
            os._exit(0)
        try:
            getattr(host, verb)(*arguments)
        except (KeyError, EngineStopped):
            continue  # its handle was refused, or the engine is gone: whoever waits has been told
