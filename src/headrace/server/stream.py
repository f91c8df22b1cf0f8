"""Replies out of events: a stream serialises each one, a whole reply is their fold."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from msgspec import UNSET
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from headrace.server.errors import ClientGone, to_api_error
from headrace.server.generation import Call, Delta, Event, Finish, Generation
from headrace.server.lifecycle import Job
from headrace.server.logprobs import TokenNames
from headrace.server.replies import CachedTokens, Extras, Usage
from headrace.server.request import extras_of
from headrace.server.schema import GenerationRequest
from headrace.server.service import Context

if TYPE_CHECKING:
    from headrace.engine.answer import Step, Token
    from headrace.engine.surface import Surface

LARGE_REPLY = 256
"""Replies of this many tokens are put together off the event loop."""


@dataclass(slots=True)
class Choice:
    """The fold of one choice's events."""

    index: int
    texts: list[str] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    step: Step | None = None

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def finish(self) -> Finish:
        assert self.step is not None, "a choice is rendered once it is complete"
        return Finish(self.index, self.step)

    def add(self, event: Event) -> None:
        if isinstance(event, Finish):
            self.step = event.step
        else:
            self.texts.append(event.text)
            self.tokens += event.tokens


@dataclass(frozen=True, slots=True)
class Envelope:
    """The constant part of a reply and of each of its chunks."""

    id: str
    created: int
    model: str
    system_fingerprint: str


class Format(Protocol):
    """How one route writes choices. Every method returns structs of `replies`."""

    chunk_object: str
    id_prefix: str

    def opening(self, index: int) -> msgspec.Struct: ...
    def delta(self, event: Delta) -> msgspec.Struct | None: ...
    def finish(self, event: Finish) -> msgspec.Struct: ...
    def whole(self, choice: Choice) -> msgspec.Struct: ...
    def reply(self, envelope: Envelope, choices: list[Any], usage: Usage, extras: Extras) -> msgspec.Struct: ...


@dataclass(slots=True)
class Run:
    """One started generation with everything needed to write its reply."""

    context: Context
    generation: Generation
    form: Format
    envelope: Envelope
    extras: Extras
    stream: bool = False
    include_usage: bool = False

    @property
    def choices(self) -> int:
        return len(self.generation.prompts) * self.generation.call.n


def _envelope(context: Context, prefix: str, model: str, profile: str) -> Envelope:
    return Envelope(prefix + secrets.token_hex(12), int(context.job.started_at), model, profile)


async def answer(
    context: Context,
    model: str,
    engine: Surface,
    request: GenerationRequest,
    call: Call,
    form: Callable[[Any, Generation, TokenNames], Format],
) -> ASGIApp:
    """Starts `call` and answers it in the given format. Whatever goes wrong, every sequence is dropped."""
    generation = Generation(engine, call)
    try:
        await generation.start()
        options = request.stream_options
        run = Run(
            context=context,
            generation=generation,
            form=(written := form(request, generation, context.service.names(engine))),
            envelope=_envelope(context, written.id_prefix, model, engine.guarantees.profile),
            extras=extras_of(engine, request, call, generation.seed),
            stream=bool(request.stream),
            include_usage=bool(options and options.include_usage),
        )
        return await _respond(run)
    except BaseException:
        generation.close()
        raise


async def _respond(run: Run) -> ASGIApp:
    """The reply to a started run. A stream begins with its first event, so that refusals keep their status."""
    if not run.stream:
        return await _whole(run)
    frames = _frames(run)
    return EventStream(run, await anext(frames), frames)


async def _whole(run: Run) -> Response:
    with contextlib.closing(run.generation):
        choices = [Choice(index) for index in range(run.choices)]
        async for burst in run.generation.bursts():
            for event in burst:
                choices[event.index].add(event)
    _record(run)
    if run.generation.completion_tokens + run.generation.prompt_tokens < LARGE_REPLY:
        body = _encode_whole(run, choices)
    else:
        body = await asyncio.to_thread(_encode_whole, run, choices)
    return Response(body, media_type="application/json")


def _encode_whole(run: Run, choices: Sequence[Choice]) -> bytes:
    if run.generation.call.label is None:
        run.extras.cached_tokens = run.generation.cached_tokens
    whole = [run.form.whole(choice) for choice in choices]
    return msgspec.json.encode(run.form.reply(run.envelope, whole, usage(run.generation), run.extras))


def usage(generation: Generation) -> Usage:
    prompt, new = generation.prompt_tokens, generation.completion_tokens
    told = generation.call.label is None
    return Usage(prompt, new, prompt + new, CachedTokens(generation.cached_tokens) if told else UNSET)


def _record(run: Run) -> None:
    for step in run.generation.steps:
        run.context.service.metrics.finished(step)


class Frames:
    """Server-sent events of one run; the constant part of every chunk is encoded once."""

    def __init__(self, run: Run) -> None:
        constant = {
            "id": run.envelope.id,
            "object": run.form.chunk_object,
            "created": run.envelope.created,
            "model": run.envelope.model,
            "system_fingerprint": run.envelope.system_fingerprint,
        }
        self._encoder = msgspec.json.Encoder()
        self._head = b"data: " + self._encoder.encode(constant)[:-1] + b',"choices":['
        self._usage = b',"usage":null' if run.include_usage else b""
        self._tail = b"]" + self._usage + b"}\n\n"

    def chunk(self, choice: msgspec.Struct) -> bytes:
        return self._head + self._encoder.encode(choice) + self._tail

    def opening(self, choice: msgspec.Struct, extras: Extras) -> bytes:
        added = b'],"headrace":' + self._encoder.encode(extras)
        return self._head + self._encoder.encode(choice) + added + self._usage + b"}\n\n"

    def usage(self, value: Usage) -> bytes:
        return self._head + b'],"usage":' + self._encoder.encode(value) + b"}\n\n"


async def _frames(run: Run) -> AsyncIterator[bytes]:
    """Bytes to send, one piece for all events that were ready together."""
    frames, form, opened = Frames(run), run.form, False
    async for burst in run.generation.bursts():
        pieces: list[bytes] = []
        if not opened:
            opened = True
            pieces += _opening(run, frames)
        for event in burst:
            choice = form.finish(event) if isinstance(event, Finish) else form.delta(event)
            if choice is not None:
                pieces.append(frames.chunk(choice))
        if pieces:
            yield b"".join(pieces)
    _record(run)
    last = frames.usage(usage(run.generation)) if run.include_usage else b""
    yield last + b"data: [DONE]\n\n"


def _opening(run: Run, frames: Frames) -> list[bytes]:
    """The first chunk of every choice; the very first one carries what Headrace adds."""
    choices = [run.form.opening(index) for index in range(run.choices)]
    pieces = [frames.opening(choices[0], run.extras)]
    return pieces + [frames.chunk(choice) for choice in choices[1:]]


class EventStream:
    """ASGI reply that sends frames as they come, and an error as the last one."""

    def __init__(self, run: Run, first: bytes, rest: AsyncIterator[bytes]) -> None:
        self._run = run
        self._first = first
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        with contextlib.closing(self._run.generation):
            try:
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send_piece(send, self._first)
                async for piece in self._rest:
                    await send_piece(send, piece)
            except (Exception, asyncio.CancelledError) as error:
                self._run.generation.close()
                await send_error(send, self._run.context.job, error)
                raise
        await send_piece(send, b"", more=False)


async def send_piece(send: Send, data: bytes, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def send_error(send: Send, job: Job, error: BaseException) -> None:
    """Ends a started stream with an error event. A client that does not read is left after a second."""
    reason = job.reason if isinstance(error, asyncio.CancelledError) else to_api_error(error)  # type: ignore[arg-type]
    if reason is None or isinstance(reason, ClientGone):
        return
    frame = b"data: " + msgspec.json.encode(reason.reply) + b"\n\n"
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            await send_piece(send, frame, more=False)
