"""One request's sequences: opened, forked, extended, and their tokens gathered into one stream of events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from headrace.server.errors import ApiError
from headrace.spec.sampling import Sampling, Stop

if TYPE_CHECKING:
    from headrace.engine.answer import Extension, Step, Token
    from headrace.engine.sampling import TokenLogprob
    from headrace.engine.sequence import SequenceHandle
    from headrace.engine.surface import Surface

Prompt: TypeAlias = str | Sequence[int] | Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Call:
    """What a request asks of the engine, whatever its route. Choice i * n + k is the k-th of prompt i.

    `label`: what its answer is labelled; with one, its hit counters are not told.
    """

    prompts: Sequence[Prompt]
    sampling: Sampling
    stop: Stop
    n: int = 1
    seed: int | None = None
    principal: str = "local"
    sharing: str | None = None
    label: str | None = None
    adapter: str | None = None
    adapter_scale: float = 1.0
    prompt_logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """Tokens of one choice that arrived together, and the text that became safe to show."""

    index: int
    tokens: list[Token]
    text: str


@dataclass(frozen=True, slots=True)
class Finish:
    """One choice is complete."""

    index: int
    step: Step


Event: TypeAlias = Delta | Finish


@dataclass(slots=True)
class OpenPrompt:
    """An open prompt: its token ids and, when asked for, their log-probabilities."""

    ids: list[int]
    seed: int
    cached: int | None = None
    logprobs: list[TokenLogprob | None] | None = None


@dataclass(slots=True)
class Inbox:
    """Tokens and ends of all choices, in order of arrival; whoever reads takes everything that is there."""

    tokens: dict[int, list[Token]] = field(default_factory=dict)
    ends: list[tuple[int, Step | Exception]] = field(default_factory=list)
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def pump(self, index: int, extension: Extension) -> None:
        try:
            async for token in extension:
                self.tokens.setdefault(index, []).append(token)
                self.wake.set()
            step = await extension
            self.ends.append((index, step))
        except Exception as error:
            self.ends.append((index, error))
        self.wake.set()


class Generation:
    """Context of one call. `close` cancels what runs and drops every sequence; it never waits."""

    def __init__(self, engine: Surface, call: Call) -> None:
        self.call = call
        self.prompts: list[OpenPrompt] = []
        self.steps: list[Step] = []
        self._engine = engine
        self._held: list[SequenceHandle] = []
        self._extensions: list[Extension] = []
        self._pumps: list[asyncio.Task[None]] = []
        self._inbox = Inbox()

    @property
    def seed(self) -> int:
        return self.prompts[0].seed

    @property
    def prompt_tokens(self) -> int:
        return sum(len(prompt.ids) for prompt in self.prompts)

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that were not computed for this call; known when all choices are complete."""
        return sum(min(prompt.cached or 0, len(prompt.ids)) for prompt in self.prompts)

    @property
    def completion_tokens(self) -> int:
        return sum(len(step.token_ids) for step in self.steps)

    def prompt_of(self, index: int) -> OpenPrompt:
        return self.prompts[index // self.call.n]

    def text_of(self, number: int) -> str:
        """The text of a prompt: as it came, or what its token ids spell."""
        prompt = self.call.prompts[number]
        if isinstance(prompt, str):
            return prompt
        assert self._engine.tokenizer is not None, "checked before the call"
        return self._engine.tokenizer.decode(self.prompts[number].ids)

    async def start(self) -> None:
        """Opens every prompt and starts all choices. Raises what the engine refuses."""
        seed = self.call.seed
        branches: list[SequenceHandle] = []
        for prompt in self.call.prompts:
            handle = await open_sequence(self._engine, prompt, self.call, seed)
            self._held.append(handle)
            seed = handle.seed
            opened = OpenPrompt(list(handle.tokens), seed)
            self.prompts.append(opened)
            if self.call.prompt_logprobs is not None:
                await self._score(handle, opened)
            branches += self._branches(handle)
        for index, branch in enumerate(branches):
            extension = branch.extend(self.call.stop, self.call.sampling)
            self._extensions.append(extension)
            self._pumps.append(asyncio.create_task(self._inbox.pump(index, extension)))

    async def bursts(self) -> AsyncIterator[list[Event]]:
        """Events that were ready together, until every choice is complete. Raises what an extension raised."""
        left, inbox = len(self._extensions), self._inbox
        shown = [0] * left
        while left:
            await inbox.wake.wait()
            inbox.wake.clear()
            tokens, inbox.tokens = inbox.tokens, {}
            ends, inbox.ends = inbox.ends, []
            events: list[Event] = []
            for index, arrived in tokens.items():
                text = "".join(token.text for token in arrived)
                shown[index] += len(text)
                events.append(Delta(index, arrived, text))
            for index, end in ends:
                left -= 1
                step = self._finished(index, end)
                if tail := step.text[shown[index] :]:
                    events.append(Delta(index, [], tail))
                events.append(Finish(index, step))
            yield events

    def close(self) -> None:
        for pump in self._pumps:
            pump.cancel()
        for extension in self._extensions:
            extension.cancel()
        for handle in self._held:
            handle.drop()
        self._held.clear()

    async def _score(self, handle: SequenceHandle, opened: OpenPrompt) -> None:
        sampling = replace(self.call.sampling, prompt_logprobs=self.call.prompt_logprobs)
        extension = handle.extend(Stop(tokens=0), sampling)
        self._extensions.append(extension)
        step = await extension
        self._extensions.remove(extension)
        opened.logprobs, opened.cached = step.prompt_logprobs, step.cached_tokens

    def _branches(self, handle: SequenceHandle) -> list[SequenceHandle]:
        if self.call.n == 1:
            return [handle]
        children = handle.fork(self.call.n)
        self._held += children
        return children

    def _finished(self, index: int, end: Step | Exception) -> Step:
        if isinstance(end, Exception):
            raise end
        if end.finish_reason not in ("stop", "length"):
            raise ApiError(503, "The engine ended the request early; send it again.", code="cancelled")
        prompt = self.prompt_of(index)
        if self.call.prompt_logprobs is None:
            cached = end.cached_tokens
            prompt.cached = cached if prompt.cached is None else min(prompt.cached, cached)
        self.steps.append(end)
        return end


async def open_sequence(engine: Surface, prompt: Prompt, call: Call, seed: int | None) -> SequenceHandle:
    """engine.open, but a cancellation while it works drops the handle as soon as it exists."""
    how = {"sharing": call.sharing, "adapter": call.adapter, "adapter_scale": call.adapter_scale}
    opened = engine.open(prompt, principal=call.principal, seed=seed, sampling=call.sampling, **how)
    opening = asyncio.ensure_future(opened)
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_drop_late)
        raise


def _drop_late(opening: asyncio.Future[SequenceHandle]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().drop()
