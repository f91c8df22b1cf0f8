"""The `compute` field of a chat request: its answer comes from a strategy of test-time compute."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from headrace.model.catalogue import cache_folder
from headrace.server.errors import refused
from headrace.server.replies import CachedTokens, ChatChoice, ChatCompletion, ChatMessage, Computed, Extras, Usage
from headrace.server.request import call_of, chat_messages, extras_of
from headrace.server.schema import BudgetFields, ChatRequest
from headrace.server.service import Context
from headrace.server.stream import send_error, send_piece
from headrace.spec.errors import InvalidRequest, ModelFileError

if TYPE_CHECKING:
    from headrace.engine.surface import Surface
    from headrace.reason.solve import Order, Result
    from headrace.reason.task import Task
    from headrace.server.generation import Call
    from headrace.spec.reasoning import Scorer
    from headrace.spec.trace import Event, Trace

JUDGE = "judge"
MAX_TOKENS = 256
"""Of one attempt, where the request does not say."""
WITHOUT = ("logprobs", "top_logprobs", "prompt_logprobs", "return_token_ids", "stop_token_ids", "ignore_eos")
"""Fields that say nothing about a search, and are refused beside `compute`."""
_NAMES = {"candidate": "compute.candidate", "best": "compute.best", "result": "compute.final"}


async def answer(context: Context, model: str, engine: Surface, request: ChatRequest, limit: int | None) -> ASGIApp:
    """Runs the strategy; a stream sends its events as they happen and then the answer as one piece."""
    search = _search(context, model, engine, request, limit)
    if not request.stream:
        with refusals():
            result = await search.run()
        return Response(msgspec.json.encode(search.reply(result)), media_type="application/json")
    events = search.frames()
    return EventStream(context, events, await anext(events))


@dataclass(slots=True)
class Search:
    """One request's run with everything needed to write its reply."""

    engine: Surface
    model: str
    request: ChatRequest
    call: Call
    task: Task
    order: Order
    id: str
    created: int

    async def run(self, trace: Trace | None = None) -> Result:
        from headrace.reason.solve import solve

        return await solve(self.engine, self.task, self.order, trace)

    def reply(self, result: Result) -> ChatCompletion:
        return ChatCompletion(
            self.id,
            "chat.completion",
            self.created,
            self.model,
            self.engine.guarantees.profile,
            [self._choice(result)],
            self._usage(result),
            self._extras(result),
            self._computed(result),
        )

    async def frames(self) -> AsyncIterator[bytes]:
        """Named events where they were asked for, then the answer as chunks that any client reads."""
        from headrace.spec.trace import Trace

        news: asyncio.Queue[Event | None] = asyncio.Queue()
        trace = Trace()
        trace.listen(news.put_nowait)
        running = asyncio.create_task(self.run(trace))
        running.add_done_callback(lambda _: news.put_nowait(None))
        shown = bool(self.request.compute and self.request.compute.stream_events)
        try:
            with refusals():
                while (event := await news.get()) is not None:
                    if event.kind == "run":
                        yield b": the run has begun\n\n"  # so that what it refuses later still has a stream to end
                    elif shown and (frame := self._event(event)) is not None:
                        yield frame
                result = await running
        finally:
            running.cancel()
        choice = self._choice(result)
        delta = {"role": "assistant", "content": choice.message.content}
        first = self._chunk([{"index": 0, "delta": delta, "finish_reason": None}])
        yield self._frame(first | {"headrace": self._extras(result), "compute": self._computed(result)})
        yield self._frame(self._chunk([{"index": 0, "delta": {}, "finish_reason": choice.finish_reason}]))
        options = self.request.stream_options
        if options is not None and options.include_usage:
            yield self._frame(self._chunk([]) | {"usage": self._usage(result)})
        yield b"data: [DONE]\n\n"

    def _choice(self, result: Result) -> ChatChoice:
        limit = self.task.ending.tokens or self.engine.context
        ended = (candidate for candidate in result.candidates if candidate.finished and candidate.tokens < limit)
        whole = any(candidate.text == result.text for candidate in ended)
        message = ChatMessage("assistant", result.text)
        return ChatChoice(index=0, message=message, logprobs=None, finish_reason="stop" if whole else "length")

    def _extras(self, result: Result) -> Extras:
        return extras_of(self.engine, self.request, self.call, result.seed)

    def _computed(self, result: Result) -> Computed:
        from headrace.reason.view import Tree

        told = self._told(result.as_json())
        computed = Computed(**{name: told[name] for name in Computed.__struct_fields__ if name in told})
        wanted = self.request.compute.give if self.request.compute and self.request.compute.give else []
        if "candidates" in wanted:
            computed.candidates = [msgspec.to_builtins(candidate) for candidate in result.candidates]
        if "tree" in wanted:
            computed.tree = [msgspec.to_builtins(root) for root in Tree.of(result.trace).roots]
        return computed

    def _event(self, event: Event) -> bytes | None:
        """A named event whose data is a chunk without choices, which a plain client passes over."""
        shown = {key: value for key, value in event.data.items() if key not in ("asked", "logprobs", "confidences")}
        told = self._told(shown)
        name = _NAMES.get(event.kind, "compute.step")
        data = self._chunk([]) | {"compute": {"kind": event.kind, "node": event.node, **told}}
        return f"event: {name}\n".encode() + self._frame(data)

    def _usage(self, result: Result) -> Usage:
        given, new = result.usage["prompt"], result.usage["completion"]
        cached = CachedTokens(result.usage["cached"]) if self.call.label is None else msgspec.UNSET
        return Usage(given, new, given + new, cached)

    def _told(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Facts of a run, without its hit counter where the request has a label."""
        if self.call.label is None or "usage" not in facts:
            return facts
        return facts | {"usage": {name: count for name, count in facts["usage"].items() if name != "cached"}}

    def _chunk(self, choices: list[Any]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.engine.guarantees.profile,
            "choices": choices,
        }

    @staticmethod
    def _frame(chunk: dict[str, Any]) -> bytes:
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


class EventStream:
    """ASGI reply that sends frames as they come, and an error as the last one."""

    def __init__(self, context: Context, frames: AsyncIterator[bytes], first: bytes) -> None:
        self._context, self._frames, self._first = context, frames, first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send_piece(send, self._first)
            async for piece in self._frames:
                await send_piece(send, piece)
        except (Exception, asyncio.CancelledError) as error:
            await self._frames.aclose()  # type: ignore[attr-defined]
            await send_error(send, self._context.job, error)
            raise
        await send_piece(send, b"", more=False)


def _search(context: Context, model: str, engine: Surface, request: ChatRequest, limit: int | None) -> Search:
    """Raises ApiError 400 for whatever `compute` cannot be run with."""
    for name in WITHOUT:
        if getattr(request, name) not in (None, False):
            raise refused(f"`{name}` and `compute` do not go together; send one.", name)
    if request.n not in (None, 1):
        raise refused("`n` and `compute` do not go together; the strategy says how many attempts there are.", "n")
    messages = chat_messages(request.messages)
    if messages[-1]["role"] != "user":
        raise refused("The last message must be the user's question; add it.", "messages")
    call = call_of(context, engine, request, [messages], limit or MAX_TOKENS, None)
    with refusals():
        task, order = _task_and_order(request, call, messages)
    created = int(context.job.started_at)
    return Search(engine, model, request, call, task, order, "chatcmpl-" + secrets.token_hex(12), created)


def _task_and_order(request: ChatRequest, call: Call, messages: list[dict[str, str]]) -> tuple[Task, Order]:
    from headrace.reason.answers import answer_space
    from headrace.reason.solve import Order
    from headrace.reason.task import Task
    from headrace.spec.budget import Budget
    from headrace.spec.sampling import Stop

    compute = request.compute
    assert compute is not None
    budget = Budget.parse(compute.budget) if isinstance(compute.budget, str) else Budget()
    if isinstance(compute.budget, BudgetFields):
        budget = Budget(**msgspec.structs.asdict(compute.budget))
    task = Task(
        messages[-1]["content"],
        answer_space(compute.answer or "text"),
        ending=Stop(tokens=call.stop.tokens, text=call.stop.text),
        before=tuple(messages[:-1]),
    )
    order = Order(
        compute.strategy,
        budget,
        _scorer(compute.scorer, call.label is not None) if compute.scorer else None,
        compute.seed if compute.seed is not None else request.seed,
        call.sampling,
        principal={name: getattr(call, name) for name in ("principal", "sharing", "adapter", "adapter_scale")},
    )
    order.plan(task)
    return task, order


def _scorer(name: str, labelled: bool) -> Scorer:
    """Raises ApiError 400 for a probe that is not there and, beside labels, for every one: it has none."""
    from headrace.reason.scorers import scorer_named

    if labelled and name != JUDGE:
        raise refused(f"No label says what a probe was trained on; use the scorer {JUDGE}.", "compute.scorer")
    try:
        return scorer_named(name)
    except ModelFileError:  # its text names the server's folders
        raise refused(f"There is no {name} here; use {JUDGE} or a probe that is.", "compute.scorer") from None


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Names the part of `compute` that is wrong, and no folder of the server's."""
    try:
        yield
    except InvalidRequest as error:
        said = str(error).replace(f"{cache_folder()}/", "")
        raise refused(said, f"compute.{error.field}" if error.field else "compute") from None
