"""An engine in a process of its own, behind the same face as one in this process.

A server uses it so that its own work (JSON, tokenising, sockets) never holds the interpreter lock of
the step loop. Text is tokenised and checked on this side; only token ids cross.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import threading
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from headrace.engine.answer import Answer, Deliveries, Extension
from headrace.engine.host import News, main
from headrace.engine.sampling import NoiseKey
from headrace.engine.sequence import ASIDE, Mark, SequenceHandle
from headrace.engine.surface import Surface
from headrace.engine.tasks import Pool
from headrace.model.catalogue import resolve
from headrace.model.loading import load_model
from headrace.spec.adapter import Adapter
from headrace.spec.errors import EngineStopped, Overloaded
from headrace.spec.labels import Label
from headrace.spec.ledger import Ledger
from headrace.spec.options import EngineOptions
from headrace.spec.sampling import Sampling, Stop


class RemoteEngine(Surface):
    """Starts the process and loads the model there. Raises what loading raises."""

    def __init__(
        self,
        model: str | Path,
        options: EngineOptions | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        super().__init__()
        self.options = options or EngineOptions()
        self._gate = threading.Lock()
        self._numbers = itertools.count(1)
        self._extensions: dict[int, Extension] = {}
        self._answers: dict[int, Answer[Any]] = {}
        self._reading: set[Answer[Any]] = set()
        self._deliveries = Deliveries()
        self._failure: str | None = None
        self._closing = False
        self._adapters: tuple[str, ...] = ()
        context = multiprocessing.get_context("spawn")
        self._pipe, far = context.Pipe()
        # This side counts what waits; the other must not refuse what was accepted here.
        far_options = replace(self.options, queue=self.options.queue + self.options.running)
        self._process = context.Process(
            target=main, args=(far, model, far_options), name="headrace-engine", daemon=True
        )
        self._process.start()
        far.close()
        self._take_over(self._await_ready(progress))
        self.tokenizer = load_model(resolve(str(model)), Ledger()).tokenizer
        self._thread = threading.Thread(target=self._read_news, name="headrace-news", daemon=True)
        self._thread.start()

    def _await_ready(self, progress: Callable[[str, int, int], None] | None) -> dict[str, Any]:
        while True:
            try:
                kind, content = self._pipe.recv()
            except EOFError:
                self._process.join(5)
                raise EngineStopped(
                    f"The engine's process ended while loading (exit status {self._process.exitcode}); "
                    f"free some memory or choose a smaller model."
                ) from None
            if kind == "failed":
                raise content
            if kind == "ready":
                facts: dict[str, Any] = content
                return facts
            if progress is not None:
                progress(*content)

    def _take_over(self, facts: dict[str, Any]) -> None:
        self.spec, self.context = facts["spec"], facts["context"]
        self.model_name, self._stats = facts["model_name"], facts["stats"]
        self._take_over_adapters(facts)

    def _take_over_adapters(self, facts: dict[str, Any]) -> None:
        self._adapters, self.guarantees, self.ledger = facts["adapters"], facts["guarantees"], facts["ledger"]

    # -- for everyone ------------------------------------------------------------------------------

    def stats(self) -> dict[str, int | float]:
        return dict(self._stats)

    def healthy(self) -> str | None:
        return self._failure

    @property
    def adapters(self) -> tuple[str, ...]:
        return self._adapters

    def add_adapter(self, name: str, source: str | Path | Adapter) -> None:
        self._check_new_adapter(name)
        self._take_over_adapters(self._ask("adapt", "add_adapter", name, source).result())

    def remove_adapter(self, name: str) -> None:
        self._take_over_adapters(self._ask("adapt", "remove_adapter", name).result())

    def clear_cache(self) -> None:
        self._call("clear_cache").result()

    def check(self) -> None:
        self._call("check").result()

    def close(self) -> None:
        with self._gate:
            first, self._closing = not self._closing, True
        if first:
            _send(self._pipe, ("close", ()))
            self._process.join(10)
            if self._process.is_alive():
                self._process.kill()
            self._thread.join(5)

    # -- verbs -------------------------------------------------------------------------------------

    def _create(self, handle: SequenceHandle, label: Label, pin: bool) -> None:
        how: dict[str, Any] = {"principal": label.principal, "sharing": label.sharing, "pin": pin}
        how |= {"place": handle.place, "adapter": handle.adapter, "adapter_scale": handle.adapter_scale}
        opened = self._ask("open", handle.id, list(handle._tokens), how)
        handle._failure = opened._future
        if pin:
            opened.result()

    def _extend(
        self, handle: SequenceHandle, tokens: list[int], stop: Stop, sampling: Sampling, noise: NoiseKey, most: int
    ) -> Extension:
        self._check_generation(stop, sampling)
        self._check_queue()
        number = next(self._numbers)
        extension = Extension(lambda: self._cancel(number))
        self._extensions[number] = extension
        self._start(self._extensions, number, "extend", handle.id, stop, sampling, handle.value)
        return extension

    def _append(self, handle: SequenceHandle, tokens: list[int]) -> None:
        self._tell("append", handle.id, tokens)

    def _truncate(self, handle: SequenceHandle, mark: Mark, replay: bool) -> None:
        self._tell("rewind", handle.id, mark, replay)

    def _branch(self, parent: SequenceHandle, kid: SequenceHandle) -> None:
        self._tell("fork", parent.id, kid.id, kid.place.path[-2] == ASIDE)

    def _score(self, handle: SequenceHandle, length: int, pieces: list[list[int]]) -> Answer[list[list[float]]]:
        self._check_queue()
        return self._read_out(self._ask("score", handle.id, pieces))

    def _read(self, handle: SequenceHandle, index: int, pool: Pool) -> Answer[np.ndarray]:
        self._check_queue()
        return self._read_out(self._ask("read", handle.id, f"hidden:{index}", pool))

    def _drop(self, handle: SequenceHandle) -> None:
        with contextlib.suppress(EngineStopped):
            self._tell("drop", handle.id)

    def _read_out(self, answer: Answer[Any]) -> Answer[Any]:
        """Counts a score or read as a request until it is settled."""
        self._reading.add(answer)
        answer._future.add_done_callback(lambda _: self._reading.discard(answer))
        return answer

    def _check_queue(self) -> None:
        waiting = len(self._extensions) + len(self._reading) - self.options.running
        if waiting >= self.options.queue:
            raise Overloaded(f"{waiting} requests wait already; try again in a moment or raise --queue.")

    # -- the pipe ----------------------------------------------------------------------------------

    def _tell(self, verb: str, *arguments: Any) -> None:
        with self._gate:
            if self._closing or self._failure is not None:
                raise EngineStopped(f"The engine has stopped ({self._failure or 'closed'}); load the model again.")
            _send(self._pipe, (verb, arguments))

    def _ask(self, verb: str, *arguments: Any) -> Answer[Any]:
        number = next(self._numbers)
        answer: Answer[Any] = Answer(lambda: self._cancel(number))
        self._answers[number] = answer
        self._start(self._answers, number, verb, *arguments)
        return answer

    def _start(self, table: dict[int, Any], number: int, verb: str, *arguments: Any) -> None:
        """Tells of a request that `table` already knows; forgets it where the engine has stopped."""
        try:
            self._tell(verb, number, *arguments)
        except EngineStopped:
            table.pop(number, None)
            raise

    def _cancel(self, number: int) -> None:
        with contextlib.suppress(EngineStopped):
            self._tell("cancel", number)

    def _call(self, name: str) -> Answer[Any]:
        return self._ask("call", name)

    def _read_news(self) -> None:
        reason = ""
        try:
            while True:
                kind, content = self._pipe.recv()
                if kind == "news":
                    self._take_news(content)
                elif kind == "answer":
                    number, outcome = content
                    _settle(self._answers.pop(number), outcome)
        except (EOFError, OSError):
            self._process.join(5)
            reason = f"its process ended with exit status {self._process.exitcode}"
        except Exception as error:  # a message that cannot be understood: nobody may wait forever for the next
            reason = f"{type(error).__name__}: {error}"
            self._process.kill()
        self._fail_all("closed" if self._closing else reason)

    def _take_news(self, news: News) -> None:
        self._stats = news.stats
        self._failure = news.healthy
        for event in news.events:
            self.events.add(event)
        for number, tokens, end in news.extensions:
            extension = self._extensions[number]
            for token in tokens:
                extension._push(token)
            if end is not None:
                _settle(self._extensions.pop(number), end)
            self._deliveries.note(extension)
        self._deliveries.send()

    def _fail_all(self, reason: str) -> None:
        with self._gate:
            self._failure = reason
        error = EngineStopped(f"The engine has stopped ({reason}); start it again.")
        for extension in list(self._extensions.values()):
            extension._fail(error)
            self._deliveries.note(extension)
        for answer in list(self._answers.values()):
            answer._fail(error)
        self._deliveries.send()


def _settle(answer: Answer[Any], outcome: Any) -> None:
    if isinstance(outcome, BaseException):
        answer._fail(outcome)
    else:
        answer._complete(outcome)


def _send(pipe: Connection, message: Any) -> None:
    try:
        pipe.send(message)
    except OSError:
        return  # the reading thread sees the same end and fails what is open
