"""POST /v1/chat/completions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET
from starlette.types import ASGIApp

from headrace.server.errors import refused
from headrace.server.generation import Delta, Finish, Generation
from headrace.server.logprobs import TokenNames, chat_logprobs, prompt_logprobs
from headrace.server.replies import (
    ChatChoice,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatLogprobs,
    ChatMessage,
    Extras,
    Usage,
)
from headrace.server.request import call_of, chat_messages, check_tokenizer
from headrace.server.schema import ChatRequest
from headrace.server.service import Context
from headrace.server.stream import Choice, Envelope, answer

if TYPE_CHECKING:
    from headrace.engine.sampling import TokenLogprob


async def chat(context: Context) -> ASGIApp:
    """Renders the messages with the model's chat template and answers."""
    request = await context.decoded(ChatRequest)
    model, engine = context.service.named(request.model, context.service.engine, context.principal)
    check_tokenizer(engine, "messages")
    if request.compute is not None:
        from headrace.server import compute

        return await compute.answer(context, model, engine, request, _max_tokens(request))
    call = call_of(
        context,
        engine,
        request,
        [chat_messages(request.messages)],
        _max_tokens(request),
        _logprobs(request),
        request.prompt_logprobs,
    )
    return await answer(context, model, engine, request, call, ChatFormat)


class ChatFormat:
    """Writes choices as chat messages."""

    chunk_object = "chat.completion.chunk"
    id_prefix = "chatcmpl-"

    def __init__(self, request: ChatRequest, generation: Generation, names: TokenNames) -> None:
        self._request = request
        self._generation = generation
        self._names = names
        self._top = request.top_logprobs or 0

    def opening(self, index: int) -> ChatChunkChoice:
        choice = ChatChunkChoice(index=index, delta=ChatDelta("assistant", ""))
        self._add_prompt(choice, index)
        return choice

    def delta(self, event: Delta) -> ChatChunkChoice | None:
        if not event.text and not self._request.logprobs and not self._request.return_token_ids:
            return None
        ids = [token.id for token in event.tokens] if self._request.return_token_ids else UNSET
        logprobs = self._logprobs([token.logprob for token in event.tokens])
        return ChatChunkChoice(index=event.index, delta=ChatDelta(content=event.text), logprobs=logprobs, token_ids=ids)

    def finish(self, event: Finish) -> ChatChunkChoice:
        step = event.step
        return ChatChunkChoice(
            index=event.index,
            delta=ChatDelta(),
            finish_reason=step.finish_reason,  # type: ignore[arg-type]
            stop_reason=step.stop,
        )

    def whole(self, choice: Choice) -> ChatChoice:
        step = choice.finish.step
        whole = ChatChoice(
            index=choice.index,
            message=ChatMessage("assistant", choice.text),
            logprobs=self._logprobs([token.logprob for token in choice.tokens]),
            finish_reason=step.finish_reason,  # type: ignore[arg-type]
            stop_reason=step.stop,
        )
        if self._request.return_token_ids:
            whole.token_ids = [token.id for token in choice.tokens]
        self._add_prompt(whole, choice.index)
        return whole

    def reply(self, head: Envelope, choices: list[ChatChoice], usage: Usage, extras: Extras) -> ChatCompletion:
        return ChatCompletion(
            head.id, "chat.completion", head.created, head.model, head.system_fingerprint, choices, usage, extras
        )

    def _logprobs(self, entries: list[TokenLogprob | None]) -> ChatLogprobs | None:
        if not self._request.logprobs:
            return None
        return chat_logprobs(self._names, [entry for entry in entries if entry is not None], self._top)

    def _add_prompt(self, choice: ChatChoice | ChatChunkChoice, index: int) -> None:
        prompt = self._generation.prompt_of(index)
        if self._request.return_token_ids:
            choice.prompt_token_ids = prompt.ids
        if prompt.logprobs is not None:
            choice.prompt_logprobs = prompt_logprobs(prompt.logprobs, self._request.prompt_logprobs or 0)


def _max_tokens(request: ChatRequest) -> int | None:
    old, new = request.max_tokens, request.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise refused(f"`max_tokens` is {old} and `max_completion_tokens` is {new}; send one.", "max_tokens")
    return old if new is None else new


def _logprobs(request: ChatRequest) -> int | None:
    if request.top_logprobs and not request.logprobs:
        raise refused("`top_logprobs` needs `logprobs: true`; add it.", "top_logprobs")
    return (request.top_logprobs or 0) if request.logprobs else None
