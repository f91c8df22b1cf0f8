"""An engine that is somewhere else and sees veiled ids only: what the local proxy serves.

Templates, tokens, text, stop strings and the key stay here. Every Surface verb that a server of token ids can
answer is mapped; the others are refused by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from headrace.engine.answer import Answer, Deliveries, Extension, Step, Token
from headrace.engine.sampling import NoiseKey, TokenLogprob
from headrace.engine.sequence import Mark, SequenceHandle
from headrace.engine.surface import Surface
from headrace.engine.tasks import Pool
from headrace.engine.text import TextStream
from headrace.model.loading import LoadedModel
from headrace.privacy.veil.errors import KeyFileError
from headrace.privacy.veil.keyfile import ClientKey, TokenBudget
from headrace.privacy.veil.notice import check_notice
from headrace.privacy.veil.tokens import TokenMap
from headrace.privacy.veil.upstream import Arrival, Served, Upstream, silent
from headrace.spec.adapter import Adapter
from headrace.spec.errors import InvalidRequest, UnsupportedModel
from headrace.spec.executor import Guarantees
from headrace.spec.labels import Label
from headrace.spec.ledger import Ledger
from headrace.spec.options import EngineOptions
from headrace.spec.sampling import FinishReason, Sampling, Stop

PROFILE = "veil (obfuscation of token ids and weights, not encryption)"
"""Stands in every answer."""

MOST_ENDS = 64
"""Stop ids that one request may carry."""


class VeiledEngine(Surface):
    """Answers by a server of the veiled model. `model`: the source, for its tokenizer and settings alone.

    A `foreign` server is another program than `headrace serve` and need not say its key; `unchecked` says what could
    then not be checked. Raises KeyFileError for a key of another vocabulary, EngineStopped where no server answers,
    OtherKey where its model was veiled with another key or in another epoch, or where it does not say so.
    """

    unchecked: str | None = None

    def __init__(
        self,
        model: LoadedModel,
        key: ClientKey,
        budget: TokenBudget,
        url: str,
        secret: str | None = None,
        foreign: bool = False,
    ) -> None:
        super().__init__()
        if model.spec.vocab != key.vocab:
            raise KeyFileError(f"The key is for {key.name}, not for {model.name}; give the model it was made for.")
        self.spec, self.tokenizer, self.model_name = model.spec, model.tokenizer, model.name
        self.options, self.ledger, self.guarantees = EngineOptions(), Ledger(), Guarantees("veil", PROFILE, False)
        self.budget, self._master = budget, key.master
        self._ends = frozenset(model.spec.eos) | frozenset(model.tokenizer.eos if model.tokenizer else ())
        self._foreign = foreign
        self._upstream = Upstream(url, TokenMap.of(key), key.master.key_id(), secret, self._check_served, foreign)
        try:
            self._served = self._upstream.served()
        except BaseException:
            self._upstream.close()
            raise
        self.context = min(model.spec.context, self._served.context or model.spec.context)
        self._readings: dict[int, Reading] = {}
        if self._served.notice is None:
            self.unchecked = (
                f"{url} does not say under which key its model is veiled; whether it is this key in epoch"
                f" {key.master.epoch} was not checked."
            )

    def _check_served(self, served: Served) -> None:
        """Raises OtherKey."""
        if served.notice is not None:
            check_notice(served.notice, self._master)
        elif not self._foreign:
            raise silent(self._upstream.url)

    # -- for everyone ------------------------------------------------------------------------------

    @property
    def adapters(self) -> tuple[str, ...]:
        return ()

    def add_adapter(self, name: str, source: str | Path | Adapter) -> None:
        raise UnsupportedModel("A veiled server has no adapters of this side; merge one before you export the model.")

    def remove_adapter(self, name: str) -> None:
        raise InvalidRequest(f"Adapter {name!r} is not loaded; nothing is left to remove.", "adapter")

    def stats(self) -> dict[str, int | float]:
        return {"running": len(self._readings), "waiting": 0}

    def healthy(self) -> str | None:
        return None

    def clear_cache(self) -> None:
        return None

    def check(self) -> None:
        return None

    def close(self) -> None:
        for id in list(self._readings):
            self._cancel(id)
        self._upstream.close()

    # -- verbs -------------------------------------------------------------------------------------

    def _create(self, handle: SequenceHandle, label: Label, pin: bool) -> None:
        if pin:
            raise InvalidRequest("Pages cannot be pinned on a veiled server; leave pin out.", "pin")

    def _append(self, handle: SequenceHandle, tokens: list[int]) -> None:
        return None

    def _truncate(self, handle: SequenceHandle, mark: Mark, replay: bool) -> None:
        return None

    def _branch(self, parent: SequenceHandle, kid: SequenceHandle) -> None:
        return None

    def _drop(self, handle: SequenceHandle) -> None:
        self._cancel(handle.id)

    def _score(self, handle: SequenceHandle, length: int, pieces: list[list[int]]) -> Answer[list[list[float]]]:
        self._refuse("scores of continuations")

    def _read(self, handle: SequenceHandle, index: int, pool: Pool) -> Answer[np.ndarray]:
        self._refuse("hidden states and embeddings")

    def _refuse(self, what: str) -> NoReturn:
        raise UnsupportedModel(f"{what.capitalize()} cannot be had through a veil; ask a plain server for them.")

    def _extend(
        self, handle: SequenceHandle, tokens: list[int], stop: Stop, sampling: Sampling, noise: NoiseKey, most: int
    ) -> Extension:
        self._check_generation(stop, sampling)
        if len(tokens) > handle.prompt_tokens and (sampling.presence_penalty or sampling.frequency_penalty):
            field = "presence_penalty" if sampling.presence_penalty else "frequency_penalty"
            raise InvalidRequest(f"{field} counts from the prompt on a veiled server; leave it out here.", field)
        ends = sorted({*stop.token_ids, *(() if stop.ignore_eos else self._ends)})
        if len(ends) > MOST_ENDS:
            raise InvalidRequest(f"{len(ends)} tokens end the text, at most {MOST_ENDS} may.", "stop_token_ids")
        self.budget.charge(len(tokens))
        seed = noise.words()[0] >> 1
        most = min(most - len(tokens), self.budget.left())  # a server may draw, and see, all that it is asked for
        body = self._upstream.body(self._served.model, tokens, most, sampling, ends, seed)
        text = TextStream(self.tokenizer, stop.text, tokens, stop.include) if self.tokenizer else None
        extension = Extension(lambda: self._cancel(handle.id))
        reading = Reading(extension, text, frozenset(ends), stop.include, self.budget, Step(prompt_tokens=len(tokens)))
        self._readings[handle.id] = reading
        self._upstream.run(self._read_back(handle.id, reading, body))
        return extension

    async def _read_back(self, id: int, reading: Reading, body: dict[str, Any]) -> None:
        try:
            await reading.run(self._upstream.stream(body))
        finally:
            if self._readings.get(id) is reading:  # else the sequence is being extended again already
                del self._readings[id]
            if not self._readings:
                self.budget.settle()

    def _cancel(self, id: int) -> None:
        if (reading := self._readings.get(id)) is not None:
            self._upstream.post(reading.cancel)


class Reading:
    """One completion on its way back: ids become text here, and stop strings are found here."""

    def __init__(
        self,
        extension: Extension,
        text: TextStream | None,
        ends: frozenset[int],
        include: bool,
        budget: TokenBudget,
        step: Step,
    ) -> None:
        self.extension, self.step = extension, step
        self._text, self._ends, self._include, self._budget = text, ends, include, budget
        self._began, self._deliveries = time.perf_counter(), Deliveries()
        self._task: asyncio.Task[None] | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """Ends it with what has arrived. Called in the upstream's event loop."""
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()

    async def run(self, arrivals: AsyncGenerator[Arrival, None]) -> None:
        self._task = asyncio.current_task()
        reason: FinishReason = "cancelled"
        try:
            async with contextlib.aclosing(arrivals):
                if not self._cancelled:
                    reason = await self._follow(arrivals)
        except asyncio.CancelledError:
            reason = "cancelled"
        except Exception as error:
            self.extension._fail(error)
            self._deliver()
            return
        self._finish(reason)

    async def _follow(self, arrivals: AsyncGenerator[Arrival, None]) -> FinishReason:
        async for arrival in arrivals:
            self.step.prompt_logprobs = arrival.prompt or self.step.prompt_logprobs
            self.step.cached_tokens = arrival.cached or self.step.cached_tokens
            logprobs: Sequence[TokenLogprob | None] = arrival.logprobs or [None] * len(arrival.ids)
            for token, logprob in zip(arrival.ids, logprobs, strict=True):
                if (reason := self._take(token, logprob)) is not None:
                    return reason
            if arrival.ids:
                self._deliver()
        return "length"

    def _take(self, token: int, logprob: TokenLogprob | None) -> FinishReason | None:
        """Why the text ends with this token, where it does."""
        step = self.step
        step.token_ids.append(token)
        if len(step.token_ids) == 1:
            step.first_token_seconds = time.perf_counter() - self._began
        if logprob is not None:
            step.logprobs = [*(step.logprobs or []), logprob]
        ended, shown, matched = token in self._ends, "", None
        if self._text is not None:
            shown = "" if ended and not self._include else self._text.push(token)
            matched = self._text.matched
        self.extension._push(Token(token, shown, logprob))
        left = self._budget.count(1)
        if ended or matched is not None:
            step.stop = token if ended else matched
            return "stop"
        return None if left else "length"

    def _finish(self, reason: FinishReason) -> None:
        if self._text is not None:
            self._text.finish()
            self.step.text = self._text.text
        self.step.finish_reason, self.step.seconds = reason, time.perf_counter() - self._began
        self.extension._complete(self.step)
        self._deliver()

    def _deliver(self) -> None:
        self._deliveries.note(self.extension)
        self._deliveries.send()
