"""The engine: one thread that admits, schedules, runs, samples and commits; everything else sends it commands."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.engine.answer import Answer, Extension
from headrace.engine.loop import Command, StepLoop
from headrace.engine.sampling import NoiseKey, TokenLogprob
from headrace.engine.sequence import Mark, SequenceHandle, combine_scores
from headrace.engine.surface import Surface
from headrace.engine.tasks import Generation, GenerationOptions, Pool, Reading, Scoring, Task
from headrace.engine.text import TextStream
from headrace.schedule.core import Core, CoreOptions
from headrace.spec.adapter import Adapter
from headrace.spec.errors import (
    EngineStopped,
    HeadraceError,
    InvalidRequest,
    Overloaded,
    SequenceClosed,
)
from headrace.spec.executor import Chooser, Executor
from headrace.spec.labels import Label
from headrace.spec.ledger import Ledger
from headrace.spec.model import PAGE_TOKENS
from headrace.spec.options import EngineOptions
from headrace.spec.sampling import Sampling, Stop

if TYPE_CHECKING:
    from headrace.model.tokenizer import Tokenizer


class Engine(Surface):
    """Runs one loaded model in this process. `Engine.load` builds it; close it, or use it as a context manager."""

    def __init__(
        self,
        executor: Executor,
        tokenizer: Tokenizer | None = None,
        options: EngineOptions | None = None,
        ledger: Ledger | None = None,
        name: str = "model",
    ) -> None:
        super().__init__()
        self.options = options or EngineOptions()
        self.spec, self.guarantees, self.tokenizer = executor.spec, executor.guarantees, tokenizer
        self.ledger, self.model_name = ledger or Ledger(), name
        limits = executor.limits
        asked = self.options.context or self.spec.context
        self.context = min(asked, self.spec.context, min(limits.pages) * PAGE_TOKENS)
        self._executor = executor
        self._choose: Chooser | None = getattr(executor, "choose", None)
        self._variant = f"{name}|{self.guarantees.profile}"
        self._digests: dict[str, str] = {}
        self._core = Core(
            CoreOptions(
                pages=min(limits.pages),
                groups=len(limits.pages),
                step_tokens=limits.tokens,
                logit_rows=limits.logits,
                running=self.options.running,
                prefix_cache=self.options.prefix_cache,
                encoder=not self.spec.causal,
            )
        )
        self._arriving: deque[Task] = deque()
        self._ends = frozenset(self.spec.eos) | frozenset(tokenizer.eos if tokenizer else ())
        self._loop = StepLoop(self._core, executor, self.events)

    @classmethod
    def load(
        cls,
        model: str | Path,
        options: EngineOptions | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Engine:
        """Loads a catalogue name, a GGUF file or a Hugging Face folder. `progress(what, done, total)` in bytes.

        Raises ModelFileError, UnsupportedModel, PlanRejected.
        """
        from headrace.engine.load import load_engine

        return load_engine(cls, model, options or EngineOptions(), progress)

    # -- for everyone ------------------------------------------------------------------------------

    @property
    def adapters(self) -> tuple[str, ...]:
        return tuple(self._digests)

    def add_adapter(self, name: str, source: str | Path | Adapter) -> None:
        self._check_new_adapter(name)
        adapter = replace(source, name=name) if isinstance(source, Adapter) else self._read_adapter(name, source)
        digest = adapter.digest()

        def add(core: Core) -> None:
            self._check_new_adapter(name)
            self._executor.add_adapter(adapter)
            self._digests = self._digests | {name: digest}
            self.guarantees = self._executor.guarantees

        self._post(add).result()

    def remove_adapter(self, name: str) -> None:
        def remove(core: Core) -> None:
            if name not in self._digests:
                raise InvalidRequest(f"Adapter {name!r} is not loaded; nothing is left to remove.", "adapter")
            users = sum(sequence.adapter == name for sequence in core.sequences.values())
            if users:
                raise InvalidRequest(f"{users} open sequences use adapter {name}; drop them first.", "adapter")
            self._executor.remove_adapter(name)
            self._digests = {other: digest for other, digest in self._digests.items() if other != name}

        self._post(remove).result()

    def _read_adapter(self, name: str, path: str | Path) -> Adapter:
        from headrace.model.adapter import read_adapter

        return read_adapter(path, name, self.spec)

    def stats(self) -> dict[str, int | float]:
        """Counters as of the last step; pages of idle handles count as used, cached ones do not."""
        core, store = self._core, self._core.store
        return {
            "steps": core.state.step,
            "running": len(core.state.running),
            "waiting": self._waiting(),
            "open_sequences": len(core.sequences),
            "admitted": core.admitted,
            "finished": self._loop.finished,
            "preempted": core.state.preempted,
            "reclaimed": core.state.reclaimed,
            "pages_used": store.used,
            "pages_pinned": core.pinned_pages,
            "pages_cached": store.cached,
            "pages_total": store.total,
        }

    def healthy(self) -> str | None:
        """None while the loop runs, else why it does not."""
        return self._loop.ended()

    def kernel_seconds(self) -> dict[str, float]:
        """Seconds of each kind of kernel since the last call; empty for a backend that does not measure them."""
        found: dict[str, float] = {}
        if (measure := getattr(self._executor, "kernel_seconds", None)) is not None:
            self._post(lambda core: found.update(measure())).result()
        return found

    def clear_cache(self) -> None:
        """Forgets all cached prefixes."""
        self._post(lambda core: core.store.clear_cache()).result()

    def check(self) -> None:
        """Raises AssertionError unless every page is accounted for exactly."""
        self._post(lambda core: core.check()).result()

    def close(self) -> None:
        """Stops the loop, fails what is open with EngineStopped, frees weights and arenas."""
        if self._loop.close():
            self._executor.close()

    # -- for handles -------------------------------------------------------------------------------

    def _post(self, command: Command) -> Future[None]:
        return self._loop.post(command)

    def _extend(
        self, handle: SequenceHandle, tokens: list[int], stop: Stop, sampling: Sampling, noise: NoiseKey, most: int
    ) -> Extension:
        self._check_generation(stop, sampling)
        self._check_queue()
        ends = frozenset() if stop.ignore_eos else self._ends
        options = GenerationOptions(sampling, stop, noise, ends, handle.prompt_tokens, most, self._choose)
        text = TextStream(self.tokenizer, stop.text, tokens, stop.include) if self.tokenizer else None
        extension = Extension(lambda: self._cancel(handle.id, extension))
        task = Generation(extension, self._loop.deliveries, options, text, len(tokens))
        wanted = 0 if sampling.prompt_logprobs is not None else len(tokens) - 1

        def start(core: Core) -> None:
            core.submit(core.sequences[handle.id], "decode", wanted, most, owner=task, value=handle.value)

        self._post_task(start, task)
        return extension

    def _score(self, handle: SequenceHandle, length: int, pieces: list[list[int]]) -> Answer[list[list[float]]]:
        self._check_queue()
        parts: list[Answer[list[TokenLogprob]]] = [Answer() for _ in pieces]
        tasks = [Scoring(part, piece) for part, piece in zip(parts, pieces, strict=True)]
        whole: Answer[list[list[float]]] = Answer(lambda: self._cancel_tasks(tasks))
        for piece, part in zip(pieces, parts, strict=True):
            if not piece:
                part._complete([])  # before any other runs: parts are counted in one thread at a time
        combine_scores(parts, whole)
        if not pieces:
            whole._complete([])
        for piece, task in zip(pieces, tasks, strict=True):
            if piece:
                self._post_task(self._scorer(handle.id, length, piece, task), task)
        return whole

    @staticmethod
    def _scorer(id: int, length: int, piece: list[int], task: Task) -> Command:
        def start(core: Core) -> None:
            hidden = core.fork_hidden(core.sequences[id])
            hidden.tokens.extend(piece[:-1])
            _submit_hidden(core, hidden.id, "score", length - 1, (), task)

        return start

    def _read(self, handle: SequenceHandle, index: int, pool: Pool) -> Answer[np.ndarray]:
        self._check_queue()
        answer: Answer[np.ndarray] = Answer(lambda: self._cancel_tasks([task]))
        task = Reading(answer, pool)

        def start(core: Core) -> None:
            hidden = core.fork_hidden(core.sequences[handle.id])
            wanted = len(hidden.tokens) - 1 if pool == "last" else 0
            _submit_hidden(core, hidden.id, "read", wanted, (index,), task)

        self._post_task(start, task)
        return answer

    def _create(self, handle: SequenceHandle, label: Label, pin: bool) -> None:
        tokens, adapter, scale = list(handle._tokens), handle.adapter, handle.adapter_scale

        def start(core: Core) -> None:
            core.open(handle.id, tokens, label, self._variant_of(adapter, scale), pin, adapter, scale)

        handle._failure = self._post(start)
        if pin:
            handle._failure.result()
            handle._failure = None

    def _variant_of(self, adapter: str | None, scale: float) -> str:
        """What computes a page, for its key. Raises InvalidRequest for an adapter that was removed meanwhile."""
        if adapter is None:
            return self._variant
        self._check_adapter(adapter, scale)
        return f"{self._variant}|{self._digests[adapter]} * {scale!r}"

    def _branch(self, parent: SequenceHandle, kid: SequenceHandle) -> None:
        def start(core: Core) -> None:
            core.fork(core.sequences[parent.id], kid.id)

        kid._failure = self._post(start)

    def _append(self, handle: SequenceHandle, tokens: list[int]) -> None:
        handle._failure = self._post(lambda core: core.sequences[handle.id].tokens.extend(tokens))

    def _truncate(self, handle: SequenceHandle, mark: Mark, replay: bool) -> None:
        handle._failure = self._post(lambda core: core.truncate(core.sequences[handle.id], mark.length))

    def _drop(self, handle: SequenceHandle) -> None:
        with contextlib.suppress(EngineStopped):
            self._post(lambda core: self._drop_now(core, handle.id))

    def _drop_now(self, core: Core, id: int) -> None:
        self._cancel_now(core, id)
        if id in core.sequences:
            core.drop(core.sequences[id])

    def _cancel(self, id: int, extension: Extension) -> None:
        """Ends this extend; one that has ended meanwhile is not mistaken for the sequence's next."""

        def command(core: Core) -> None:
            if not extension.done():
                self._cancel_now(core, id)

        with contextlib.suppress(EngineStopped):
            self._post(command)

    @staticmethod
    def _cancel_now(core: Core, id: int) -> None:
        if (work := core.work_of(id)) is not None:
            work.owner.cancel(core, work)

    def _cancel_tasks(self, tasks: Sequence[Task]) -> None:
        def command(core: Core) -> None:
            for work in [work for work in core.works() if work.owner in tasks]:
                work.owner.cancel(core, work)

        with contextlib.suppress(EngineStopped):
            self._post(command)

    def _post_task(self, start: Command, task: Task) -> None:
        def command(core: Core) -> None:
            self._arriving.popleft()
            try:
                start(core)
            except KeyError:
                task.fail(SequenceClosed("The sequence was dropped; open a new one."))
            except Exception as error:
                task.fail(error)

        self._arriving.append(task)
        try:
            self._post(command)
        except EngineStopped:
            self._arriving.pop()
            raise

    def _waiting(self) -> int:
        """Requests queued, those that the loop has not received yet included."""
        return len(self._core.state.waiting) + len(self._arriving)

    def _check_queue(self) -> None:
        waiting = self._waiting()
        if waiting >= self.options.queue:
            raise Overloaded(f"{waiting} requests wait already; try again in a moment or raise --queue.")


def _submit_hidden(core: Core, id: int, phase: Any, wanted: int, reads: tuple[int, ...], task: Task) -> None:
    """Queues work of a hidden fork, which is dropped when the work cannot even be queued."""
    sequence = core.sequences[id]
    try:
        core.submit(sequence, phase, wanted, len(sequence.tokens), reads, task)
    except HeadraceError:
        core.drop(sequence)
        raise
