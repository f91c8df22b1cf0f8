"""Reply bodies as typed structs; /openapi.json is made from them."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from headrace.privacy.veil.notice import Notice


class CachedTokens(Struct):
    cached_tokens: int


class Usage(Struct):
    """Tokens of one request; a prompt counts once whatever `n` is. Without details where requests have labels."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens | UnsetType = UNSET


class EffectiveSampling(Struct):
    """What the tokens were drawn with, defaults filled in."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float


class Extras(Struct, omit_defaults=True):
    """What Headrace adds. In a stream: in the first chunk, where `cached_tokens` is not known yet."""

    backend: str
    profile: str
    bit_exact: bool
    sampling: EffectiveSampling | UnsetType = UNSET
    seed: int | UnsetType = UNSET
    cached_tokens: int | UnsetType = UNSET
    adapter: str | UnsetType = UNSET
    adapter_scale: float | UnsetType = UNSET
    label: str | UnsetType = UNSET
    pooling: str | UnsetType = UNSET
    ignored: list[str] | UnsetType = UNSET


class ChatTop(Struct):
    token: str
    logprob: float
    bytes: list[int] | None


class ChatTokenLogprob(Struct):
    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[ChatTop]


class ChatLogprobs(Struct):
    content: list[ChatTokenLogprob]
    refusal: None = None


class TextLogprobs(Struct):
    """`text_offset` counts characters from the start of the choice's text."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class PromptLogprob(Struct):
    """One prompt token; `top` are the most likely tokens in its place."""

    token_id: int
    logprob: float
    top: list[tuple[int, float]]


class ChatMessage(Struct):
    role: Literal["assistant"]
    content: str
    refusal: None = None


class ChoiceExtras(Struct, kw_only=True):
    """Keys that come with an option: `return_token_ids`, `prompt_logprobs`. `stop_reason`: what matched."""

    stop_reason: str | int | UnsetType | None = UNSET
    token_ids: list[int] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET
    prompt_logprobs: list[PromptLogprob | None] | UnsetType = UNSET


class ChatChoice(ChoiceExtras, kw_only=True):
    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"]


class ChatDelta(Struct):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET


class ChatChunkChoice(ChoiceExtras, kw_only=True):
    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class TextChoice(ChoiceExtras, kw_only=True):
    """A choice of a text completion; in a stream, `text` is what is new."""

    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class Computed(Struct, kw_only=True):
    """What a strategy found: `answer` null is unparsed; `interval` is the 95 % Wilson interval of `confidence`.

    `usage` counts forks, scorer tokens, peak pages and seconds as well, and what was cached where nothing has a label.
    """

    answer: str | None
    confidence: float
    interval: list[float]
    strategy: str
    stopped_by: str
    seed: int
    usage: dict[str, Any]
    trace_id: str
    candidates: list[dict[str, Any]] | UnsetType = UNSET
    tree: list[dict[str, Any]] | UnsetType = UNSET


class ChatCompletion(Struct):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage
    headrace: Extras
    compute: Computed | UnsetType = UNSET


class ChatChunk(Struct):
    """One server-sent event of a chat stream. The last one, when asked for, has no choices but `usage`."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: Usage | UnsetType | None = UNSET
    headrace: Extras | UnsetType = UNSET


class TextCompletion(Struct):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: Usage | UnsetType | None = UNSET
    headrace: Extras | UnsetType = UNSET


class EmbeddingUsage(Struct):
    prompt_tokens: int
    total_tokens: int


class Embedding(Struct):
    """`embedding`: numbers, or base64 of little-endian float32."""

    index: int
    embedding: list[float] | str
    object: Literal["embedding"] = "embedding"


class EmbeddingReply(Struct):
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
    headrace: Extras
    object: Literal["list"] = "list"


class ModelCard(Struct):
    """`max_model_len`: longest sequence in tokens. `parent`: the model whose adapter it is.

    `veil`: under which key a veiled model is, and what that is worth.
    """

    id: str
    created: int
    max_model_len: int
    object: Literal["model"] = "model"
    owned_by: str = "headrace"
    parent: str | UnsetType = UNSET
    veil: Notice | UnsetType = UNSET


class ModelList(Struct):
    data: list[ModelCard]
    object: Literal["list"] = "list"


class TokenizeReply(Struct):
    tokens: list[int]
    count: int
    max_model_len: int


class DetokenizeReply(Struct):
    prompt: str


class Health(Struct):
    status: Literal["ok"]
    model: str
