"""POST /tokenize and /detokenize: the tokenizer as the engine uses it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.types import ASGIApp

from headrace.server.errors import refused
from headrace.server.replies import DetokenizeReply, TokenizeReply
from headrace.server.request import chat_messages, check_ids, check_tokenizer
from headrace.server.schema import DetokenizeRequest, TokenizeRequest
from headrace.server.service import Context, json_reply

if TYPE_CHECKING:
    from headrace.engine.surface import Surface


async def tokenize(context: Context) -> ASGIApp:
    """Ids of a text, or of chat messages after the chat template."""
    request = await context.decoded(TokenizeRequest)
    _, engine = context.service.named(request.model, context.service.engine, context.principal)
    check_tokenizer(engine, "model")
    if (request.prompt is None) == (request.messages is None):
        raise refused("Exactly one of `prompt` and `messages` is needed; send one.", "prompt")
    if request.messages is not None and request.add_special_tokens is not None:
        text = "`add_special_tokens` is for `prompt` only, messages follow the template; leave it out."
        raise refused(text, "add_special_tokens")
    ids = await asyncio.to_thread(_encode, engine, request)
    return json_reply(TokenizeReply(ids, len(ids), engine.context))


async def detokenize(context: Context) -> ASGIApp:
    """The text that token ids spell."""
    request = await context.decoded(DetokenizeRequest)
    _, engine = context.service.named(request.model, context.service.engine, context.principal)
    check_tokenizer(engine, "model")
    check_ids(engine, request.tokens, "tokens")
    assert engine.tokenizer is not None
    skip = bool(request.skip_special_tokens)
    text = await asyncio.to_thread(engine.tokenizer.decode, request.tokens, skip)
    return json_reply(DetokenizeReply(text))


def _encode(engine: Surface, request: TokenizeRequest) -> list[int]:
    if request.messages is not None:
        return engine.encode(chat_messages(request.messages))
    assert engine.tokenizer is not None and request.prompt is not None
    return engine.tokenizer.encode(request.prompt, bos=request.add_special_tokens is not False)
