"""From a checked request to a call: what chat and text completions have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import UNSET

from headrace.server.errors import refused
from headrace.server.generation import Call, Prompt
from headrace.server.replies import EffectiveSampling, Extras
from headrace.server.schema import GenerationRequest, Message, TextPart, ignored
from headrace.server.service import Context
from headrace.spec.sampling import Sampling, Stop

if TYPE_CHECKING:
    from headrace.engine.surface import Surface

_SHARED = ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty")


def call_of(
    context: Context,
    engine: Surface,
    request: GenerationRequest,
    prompts: Sequence[Prompt],
    max_tokens: int | None,
    logprobs: int | None,
    prompt_logprobs: int | None = None,
) -> Call:
    """Raises ApiError 400 for whatever contradicts the model or the server's limits."""
    _check_model(engine)
    n = request.n or 1
    if len(prompts) * n > (limit := context.service.config.max_choices):
        raise refused(f"{len(prompts)} prompts times n = {n} is more than {limit} choices; ask for fewer.", "n")
    if request.stream_options is not None and not request.stream:
        raise refused("`stream_options` needs `stream: true`; leave it out or stream.", "stream_options")
    adapter, scale = context.service.adapter_of(engine, request, context.principal)
    context.log_user(request.user)
    return Call(
        prompts=prompts,
        sampling=_sampling(engine, request, logprobs),
        stop=_stop(engine, request, max_tokens),
        n=n,
        seed=request.seed,
        principal=context.principal,
        sharing=context.sharing,
        label=context.label,
        adapter=adapter,
        adapter_scale=scale,
        prompt_logprobs=prompt_logprobs,
    )


def extras_of(engine: Surface, request: GenerationRequest, call: Call, seed: int) -> Extras:
    drawn = call.sampling
    sampling = EffectiveSampling(**{name: getattr(drawn, name) for name in EffectiveSampling.__struct_fields__})
    promised = engine.guarantees
    return Extras(
        promised.backend,
        promised.profile,
        promised.bit_exact,
        sampling=sampling,
        seed=seed,
        adapter=call.adapter or UNSET,
        adapter_scale=call.adapter_scale if call.adapter else UNSET,
        label=call.label or UNSET,
        ignored=ignored(request),
    )


def chat_messages(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Messages for the chat template: developer is system, text parts are joined by newlines."""
    plain = []
    for message in messages:
        role = "system" if message.role == "developer" else message.role
        entry = {"role": role, "content": _content(message.content)}
        if message.name is not None:
            entry["name"] = message.name
        plain.append(entry)
    return plain


def check_tokenizer(engine: Surface, param: str) -> None:
    """Raises ApiError 400 when only token ids can be sent."""
    if engine.tokenizer is None:
        text = f"{engine.model_name} has no tokenizer; send token ids to /v1/completions instead of text."
        raise refused(text, param, "no_tokenizer")


def check_ids(engine: Surface, ids: Sequence[int], param: str) -> None:
    if ids and max(ids) >= (vocab := engine.spec.vocab):
        raise refused(f"`{param}` has {max(ids)}, but token ids go from 0 to {vocab - 1}; correct it.", param)


def text_prompts(engine: Surface, value: str | Sequence[str | int | Sequence[int]], param: str) -> list[Prompt]:
    """A text, texts, token ids or lists of token ids as prompts; raises ApiError 400 for a mixture."""
    if isinstance(value, str):
        check_tokenizer(engine, param)
        return [value]
    kinds = {type(item) for item in value}
    if len(kinds) != 1:
        raise refused(f"`{param}` mixes texts and token ids; send one kind.", param)
    if kinds == {str}:
        check_tokenizer(engine, param)
        return list(value)  # type: ignore[arg-type]
    prompts = [value] if kinds == {int} else list(value)
    for ids in prompts:
        if len(ids) > engine.context:  # type: ignore[arg-type]
            text = f"A prompt has {len(ids)} tokens and the context is {engine.context}; shorten it."  # type: ignore[arg-type]
            raise refused(text, param, "context_length_exceeded")
        check_ids(engine, ids, param)  # type: ignore[arg-type]
    return prompts  # type: ignore[return-value]


def _check_model(engine: Surface) -> None:
    if not engine.spec.causal:
        text = f"{engine.model_name} is an encoder and cannot generate; use /v1/embeddings."
        raise refused(text, "model", "model_cannot_generate")


def _sampling(engine: Surface, request: GenerationRequest, logprobs: int | None) -> Sampling:
    given = {name: value for name in _SHARED if (value := getattr(request, name)) is not None}
    bias = {int(token): value for token, value in (request.logit_bias or {}).items()}
    check_ids(engine, list(bias), "logit_bias")
    return Sampling(**given, logit_bias=bias, logprobs=logprobs)


def _stop(engine: Surface, request: GenerationRequest, max_tokens: int | None) -> Stop:
    texts = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ())
    ids = tuple(request.stop_token_ids or ())
    if texts:
        check_tokenizer(engine, "stop")
    check_ids(engine, ids, "stop_token_ids")
    return Stop(tokens=max_tokens, token_ids=ids, text=texts, ignore_eos=bool(request.ignore_eos))


def _content(content: str | list[TextPart]) -> str:
    return content if isinstance(content, str) else "\n".join(part.text for part in content)
