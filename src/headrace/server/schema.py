"""Request bodies as typed structs: unknown fields and wrong types never get past the decoder."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from headrace.server.errors import ApiError, refused
from headrace.spec.adapter import MOST_STRENGTH
from headrace.spec.sampling import MAX_TOP_LOGPROBS

BIG_BODY = 32 * 1024
"""Bodies from this many bytes on are decoded off the event loop."""

TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Text = str
Positive = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Alternatives = Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Share = Annotated[float, Meta(ge=0, le=1)]
Strength = Annotated[float, Meta(ge=-MOST_STRENGTH, le=MOST_STRENGTH)]
StopText = Annotated[str, Meta(min_length=1)]
StopTexts = Annotated[list[StopText], Meta(max_length=4)]
StopIds = Annotated[list[TokenId], Meta(max_length=64)]
BiasKey = Annotated[str, Meta(pattern="^[0-9]{1,9}$")]
Bias = Annotated[float, Meta(ge=-100, le=100)]


class StreamOptions(Struct, forbid_unknown_fields=True, kw_only=True):
    """`include_obfuscation` has no effect."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class TextPart(Struct, forbid_unknown_fields=True, kw_only=True):
    type: Literal["text"]
    text: str


class Message(Struct, forbid_unknown_fields=True, kw_only=True):
    """One chat message. Parts are joined by newlines; fields of other kinds of message may only be null."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Meta(min_length=1)]
    name: str | None = None
    refusal: None = None
    audio: None = None
    tool_calls: None = None
    tool_call_id: None = None
    function_call: None = None


class Unaffecting(Struct, forbid_unknown_fields=True, kw_only=True):
    """Fields without effect here: accepted, and echoed under `headrace.ignored`. `user` is logged."""

    store: Any = None
    metadata: Any = None
    service_tier: Any = None
    user: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    parallel_tool_calls: Any = None


class GenerationRequest(Unaffecting, forbid_unknown_fields=True, kw_only=True):
    """What chat and text completions share. `seed` None: one is drawn and echoed."""

    model: str | None = None
    adapter: str | None = None
    adapter_scale: Strength | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Positive | None = None
    max_tokens: Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=100)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Count | None = None
    min_p: Share | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=100)] | None = None
    logit_bias: Annotated[dict[BiasKey, Bias], Meta(max_length=1024)] | None = None
    seed: Seed | None = None
    stop: StopText | StopTexts | None = None
    stop_token_ids: StopIds | None = None
    ignore_eos: bool | None = None
    prompt_logprobs: Alternatives | None = None
    return_token_ids: bool | None = None
    best_of: Any = None


class BudgetFields(Struct, forbid_unknown_fields=True, kw_only=True):
    """Upper bounds of a search; null is none."""

    tokens: Count | None = None
    prefill: Count | None = None
    seconds: Annotated[float, Meta(ge=0)] | None = None
    flops: Annotated[float, Meta(ge=0)] | None = None
    pages: Count | None = None
    calls: Count | None = None


class Compute(Struct, forbid_unknown_fields=True, kw_only=True):
    """How much thought an answer gets. `budget` as text is like "400 tok, 10 s"; `seed` precedes the request's own.

    `answer`: what is compared in votes (text, number, choice, json). `stream_events`: progress as named events.
    """

    strategy: str
    scorer: str | None = None
    answer: str | None = None
    budget: str | BudgetFields | None = None
    seed: Seed | None = None
    give: list[Literal["candidates", "tree"]] | None = msgspec.field(name="return", default=None)
    stream_events: bool | None = None


class ChatRequest(GenerationRequest, forbid_unknown_fields=True, kw_only=True):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Alternatives | None = None
    tools: Any = None
    tool_choice: Any = None
    response_format: Any = None
    functions: Any = None
    function_call: Any = None
    modalities: Any = None
    audio: Any = None
    prediction: Any = None
    reasoning_effort: Any = None
    verbosity: Any = None
    web_search_options: Any = None
    moderation: Any = None
    compute: Compute | None = None


class CompletionRequest(GenerationRequest, forbid_unknown_fields=True, kw_only=True):
    """POST /v1/completions. `prompt`: a text, texts, token ids, or lists of token ids."""

    prompt: Text | Annotated[list[str | TokenId | Annotated[list[TokenId], Meta(min_length=1)]], Meta(min_length=1)]
    echo: bool | None = None
    logprobs: Alternatives | None = None
    suffix: Any = None
    compute: Any = None


class EmbeddingRequest(Unaffecting, forbid_unknown_fields=True, kw_only=True):
    """POST /v1/embeddings. `input` as `prompt` of completions."""

    input: Text | Annotated[list[str | TokenId | Annotated[list[TokenId], Meta(min_length=1)]], Meta(min_length=1)]
    model: str | None = None
    adapter: str | None = None
    adapter_scale: Strength | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Any = None


class TokenizeRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """POST /tokenize: one of `prompt` and `messages`. `add_special_tokens` is for `prompt` only."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[Message], Meta(min_length=1)] | None = None
    add_special_tokens: bool | None = None


class DetokenizeRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """POST /detokenize."""

    tokens: list[TokenId]
    model: str | None = None
    skip_special_tokens: bool | None = None


IGNORED = tuple(Unaffecting.__struct_fields__)

ALLOWED: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none",),
    "response_format": ({"type": "text"},),
    "functions": ([],),
    "function_call": ("none",),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "verbosity": (),
    "web_search_options": (),
    "moderation": (),
    "best_of": (1,),
    "suffix": ("",),
    "compute": (),
    "dimensions": (),
}
"""Fields that could change the answer and are not supported: null, or one of these neutral values, passes."""

_Request = TypeVar("_Request", bound=Struct)
_PATH = re.compile(r"^(.*?) - at (?:`key` in )?`\$\.?([^`]*)`$", re.DOTALL)
_UNKNOWN = re.compile(r"unknown field `(.*)`$", re.DOTALL)


async def decode(body: bytes, kind: type[_Request]) -> _Request:
    """`body` as a checked `kind`; raises ApiError 400 that names the field."""
    if len(body) < BIG_BODY:
        return decode_now(body, kind)
    return await asyncio.to_thread(decode_now, body, kind)


def decode_now(body: bytes, kind: type[_Request]) -> _Request:
    try:
        request = msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refused(f"The body is not JSON ({error}); send one UTF-8 JSON object.", code="invalid_json") from None
    _refuse_unsupported(request)
    return request


def neutral(kind: type[Struct]) -> dict[str, tuple[Any, ...]]:
    """ALLOWED, without what this kind of request does support."""
    return {name: values for name, values in ALLOWED.items() if not (name == "compute" and kind is ChatRequest)}


def ignored(request: Struct) -> list[str]:
    """The fields without effect that the client sent."""
    return [name for name in IGNORED if getattr(request, name, None) is not None]


def _refuse_unsupported(request: Struct) -> None:
    for name in request.__struct_fields__:
        value = getattr(request, name)
        if name in neutral(type(request)) and value is not None and value not in ALLOWED[name]:
            raise refused(f"`{name}` is not supported here; leave it out.", name, "unsupported_field")


def _invalid(message: str) -> ApiError:
    located = _PATH.match(message)
    what, where = (located.group(1), located.group(2)) if located else (message, "")
    if unknown := _UNKNOWN.search(what):
        name = f"{where}.{unknown.group(1)}" if where else unknown.group(1)
        return refused(f"`{name}` is not a field that this route knows; leave it out.", name, "unknown_field")
    missing = re.search(r"missing required field `(.*)`$", what)
    if missing:
        name = f"{where}.{missing.group(1)}" if where else missing.group(1)
        return refused(f"`{name}` is missing; add it.", name, "missing_field")
    name = where or "the body"
    return refused(f"`{name}` is not valid: {what}; correct it.", where or None, "invalid_value")
