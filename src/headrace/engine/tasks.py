"""What the engine thread does with the output of a row: draw a token, score, or read hidden states."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np

from headrace.engine.answer import Answer, Deliveries, Extension, Step, Token
from headrace.engine.sampling import NoiseKey, TokenLogprob, draw, token_logprob
from headrace.engine.text import TextStream
from headrace.schedule.core import Core
from headrace.schedule.sequence import Work
from headrace.spec.batch import Row
from headrace.spec.errors import Cancelled
from headrace.spec.executor import Chooser
from headrace.spec.sampling import FinishReason, Sampling, Stop

Pool: TypeAlias = Literal["last", "mean", "all"]


class Task(Protocol):
    """Owner of a work. `accept` gets the row's wanted logits [n, vocab] and hidden states [tokens, hidden]."""

    def admitted(self, work: Work) -> None:
        """The work starts to run, perhaps not for the first time."""
        return None

    def accept(self, core: Core, work: Work, row: Row, logits: np.ndarray, hidden: np.ndarray | None) -> None: ...

    def fail(self, error: Exception) -> None: ...

    def cancel(self, core: Core, work: Work) -> None: ...


@dataclass(slots=True)
class GenerationOptions:
    """`prompt`: tokens given when the sequence was opened (penalties count those after them)."""

    sampling: Sampling
    stop: Stop
    noise: NoiseKey
    end_tokens: frozenset[int]
    prompt: int
    most: int
    choose: Chooser | None = None


class Generation(Task):
    """Owner of an extend."""

    def __init__(
        self,
        extension: Extension,
        deliveries: Deliveries,
        options: GenerationOptions,
        text: TextStream | None,
        length: int,
    ) -> None:
        self._extension = extension
        self._deliveries = deliveries
        self._options = options
        self._text = text
        self._started = time.perf_counter()
        self._waiting = True
        self.step = Step(prompt_tokens=length)
        if options.sampling.logprobs is not None:
            self.step.logprobs = []
        if options.sampling.prompt_logprobs is not None:
            self.step.prompt_logprobs = [None]

    def admitted(self, work: Work) -> None:
        if self._waiting:
            self._waiting = False
            self.step.queue_seconds = time.perf_counter() - self._started
            self.step.cached_tokens = work.cached_tokens or 0

    def accept(self, core: Core, work: Work, row: Row, logits: np.ndarray, hidden: np.ndarray | None) -> None:
        tokens, end = work.sequence.tokens, row.start + len(row.tokens)
        if self.step.prompt_logprobs is not None and work.produced == 0:
            self._note_prompt(work, end - len(logits), logits)
        work.wanted_from = max(work.wanted_from, end)
        if end < len(tokens):
            return
        if len(tokens) >= work.most:
            self._finish(core, work, "length")
            return
        options = self._options
        token = draw(logits[-1], options.sampling, options.noise, tokens, options.prompt, options.choose)
        if self.step.logprobs is not None:
            self.step.logprobs.append(token_logprob(logits[-1], token, options.sampling.logprobs or 0))
        core.grow(work, token)
        self._deliver(core, work, token)

    def _note_prompt(self, work: Work, first: int, logits: np.ndarray) -> None:
        assert self.step.prompt_logprobs is not None
        tokens, top = work.sequence.tokens, self._options.sampling.prompt_logprobs or 0
        for position, row in enumerate(logits, first):
            if position + 1 < len(tokens):
                self.step.prompt_logprobs.append(token_logprob(row, tokens[position + 1], top))

    def _deliver(self, core: Core, work: Work, token: int) -> None:
        step, stop = self.step, self._options.stop
        step.token_ids.append(token)
        if len(step.token_ids) == 1:
            step.first_token_seconds = time.perf_counter() - self._started
        ended = token in self._options.end_tokens or token in stop.token_ids
        shown = ""
        if self._text is not None and (not ended or stop.include):
            began = time.perf_counter()
            shown = self._text.push(token)
            self._deliveries.text_seconds += time.perf_counter() - began
        matched = self._text.matched if self._text is not None else None
        reason: FinishReason | None = None
        if ended or matched is not None:
            reason, step.stop = "stop", token if ended else matched
        elif len(work.sequence.tokens) >= work.most:
            reason = "length"
        if reason is not None and self._text is not None:
            shown += self._text.finish()
        self._extension._push(Token(token, shown, step.logprobs[-1] if step.logprobs else None))
        self._deliveries.note(self._extension)
        if reason is not None:
            self._finish(core, work, reason)

    def _finish(self, core: Core, work: Work, reason: FinishReason) -> None:
        core.finish(work)
        self.step.finish_reason = reason
        self.step.text = self._text.text if self._text is not None else ""
        self.step.seconds = time.perf_counter() - self._started
        self._extension._complete(self.step)
        self._deliveries.note(self._extension)

    def cancel(self, core: Core, work: Work) -> None:
        self._finish(core, work, "cancelled")

    def fail(self, error: Exception) -> None:
        self._extension._fail(error)
        self._deliveries.note(self._extension)


class Scoring(Task):
    """Owner of one continuation's score. `targets`: the tokens whose log-probabilities are asked for."""

    def __init__(self, answer: Answer[list[TokenLogprob]], targets: list[int]) -> None:
        self._answer = answer
        self._targets = targets
        self._scores: list[TokenLogprob] = []

    def accept(self, core: Core, work: Work, row: Row, logits: np.ndarray, hidden: np.ndarray | None) -> None:
        for values in logits:
            self._scores.append(token_logprob(values, self._targets[len(self._scores)], 0))
        work.wanted_from = max(work.wanted_from, row.start + len(row.tokens))
        if len(self._scores) == len(self._targets):
            core.finish(work)
            self._answer._complete(self._scores)

    def cancel(self, core: Core, work: Work) -> None:
        core.finish(work)
        self.fail(Cancelled("The score was cancelled before it was done; ask for it again."))

    def fail(self, error: Exception) -> None:
        self._answer._fail(error)


class Reading(Task):
    """Owner of a read: the hidden state [hidden] of the last token, their mean, or all of them [tokens, hidden]."""

    def __init__(self, answer: Answer[np.ndarray], pool: Pool) -> None:
        self._answer = answer
        self._pool = pool
        self._parts: list[np.ndarray] = []
        self._sum: np.ndarray | None = None

    def accept(self, core: Core, work: Work, row: Row, logits: np.ndarray, hidden: np.ndarray | None) -> None:
        assert hidden is not None
        end = row.start + len(row.tokens)
        fresh = hidden[max(work.wanted_from - row.start, 0) :]
        work.wanted_from = max(work.wanted_from, end)
        if self._pool == "mean":
            for values in fresh.astype(np.float64):  # one at a time, so that chunking cannot change the sum
                self._sum = values.copy() if self._sum is None else self._sum + values
        else:
            self._parts.append(np.array(fresh))
        if end == len(work.sequence.tokens):
            core.finish(work)
            self._answer._complete(self._result(end))

    def _result(self, count: int) -> np.ndarray:
        if self._sum is not None:
            return (self._sum / count).astype(np.float32)
        every = np.concatenate(self._parts)
        return every[-1] if self._pool == "last" else every

    def cancel(self, core: Core, work: Work) -> None:
        core.finish(work)
        self.fail(Cancelled("The read was cancelled before it was done; ask for it again."))

    def fail(self, error: Exception) -> None:
        self._answer._fail(error)
