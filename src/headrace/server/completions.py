"""POST /v1/completions: text or token ids in, text (and token ids, when asked for) out."""

from __future__ import annotations

from msgspec import UNSET
from starlette.types import ASGIApp

from headrace.server.generation import Delta, Finish, Generation
from headrace.server.logprobs import Offsets, TokenNames, joined, prompt_logprobs, text_logprobs
from headrace.server.replies import Extras, TextChoice, TextCompletion, TextLogprobs, Usage
from headrace.server.request import call_of, check_tokenizer, text_prompts
from headrace.server.schema import CompletionRequest
from headrace.server.service import Context
from headrace.server.stream import Choice, Envelope, answer

DEFAULT_TOKENS = 16
"""OpenAI's default for `max_tokens` of this route."""


async def completions(context: Context) -> ASGIApp:
    """Continues each prompt `n` times."""
    request = await context.decoded(CompletionRequest)
    model, engine = context.service.named(request.model, context.service.engine, context.principal)
    prompts = text_prompts(engine, request.prompt, "prompt")
    if request.echo:
        check_tokenizer(engine, "echo")
    limit = DEFAULT_TOKENS if request.max_tokens is None else request.max_tokens
    call = call_of(context, engine, request, prompts, limit, request.logprobs, _prompt_logprobs(request))
    return await answer(context, model, engine, request, call, TextFormat)


class TextFormat:
    """Writes choices as plain text; with `echo`, behind the prompt's."""

    chunk_object = "text_completion"
    id_prefix = "cmpl-"

    def __init__(self, request: CompletionRequest, generation: Generation, names: TokenNames) -> None:
        self._request = request
        self._generation = generation
        self._names = names
        self._echoes = _echoes(request, generation)
        self._offsets: dict[int, Offsets] = {}

    def opening(self, index: int) -> TextChoice:
        choice = TextChoice(index=index, text=self._echo(index), logprobs=self._echoed_logprobs(index))
        self._add_prompt(choice, index)
        return choice

    def delta(self, event: Delta) -> TextChoice | None:
        wanted = self._request.logprobs is not None or self._request.return_token_ids
        if not event.text and not (wanted and event.tokens):
            return None
        ids = [token.id for token in event.tokens] if self._request.return_token_ids else UNSET
        return TextChoice(index=event.index, text=event.text, logprobs=self._logprobs(event), token_ids=ids)

    def finish(self, event: Finish) -> TextChoice:
        reason = event.step.finish_reason
        return TextChoice(index=event.index, text="", finish_reason=reason, stop_reason=event.step.stop)  # type: ignore[arg-type]

    def whole(self, choice: Choice) -> TextChoice:
        step, index = choice.finish.step, choice.index
        echoed = self._echoed_logprobs(index)
        logprobs = self._logprobs(Delta(index, choice.tokens, ""))
        whole = TextChoice(
            index=index,
            text=self._echo(index) + choice.text,
            logprobs=joined(echoed, logprobs) if echoed and logprobs else logprobs,
            finish_reason=step.finish_reason,  # type: ignore[arg-type]
            stop_reason=step.stop,
        )
        if self._request.return_token_ids:
            whole.token_ids = [token.id for token in choice.tokens]
        self._add_prompt(whole, index)
        return whole

    def reply(self, head: Envelope, choices: list[TextChoice], usage: Usage, extras: Extras) -> TextCompletion:
        return TextCompletion(
            head.id, "text_completion", head.created, head.model, head.system_fingerprint, choices, usage, extras
        )

    def _echo(self, index: int) -> str:
        return self._echoes[index // self._generation.call.n] if self._echoes else ""

    def _echoed_logprobs(self, index: int) -> TextLogprobs | None:
        prompt = self._generation.prompt_of(index)
        if not self._request.echo or self._request.logprobs is None or prompt.logprobs is None:
            return None
        offsets = Offsets(self._names)
        return text_logprobs(self._names, offsets, prompt.ids, prompt.logprobs, self._request.logprobs)

    def _logprobs(self, event: Delta) -> TextLogprobs | None:
        if (top := self._request.logprobs) is None:
            return None
        offsets = self._offsets.get(event.index)
        if offsets is None:
            offsets = self._offsets[event.index] = Offsets(self._names, len(self._echo(event.index)))
        ids = [token.id for token in event.tokens]
        return text_logprobs(self._names, offsets, ids, [token.logprob for token in event.tokens], top)

    def _add_prompt(self, choice: TextChoice, index: int) -> None:
        prompt = self._generation.prompt_of(index)
        if self._request.return_token_ids:
            choice.prompt_token_ids = prompt.ids
        if self._request.prompt_logprobs is not None and prompt.logprobs is not None:
            choice.prompt_logprobs = prompt_logprobs(prompt.logprobs, self._request.prompt_logprobs)


def _prompt_logprobs(request: CompletionRequest) -> int | None:
    """How many alternatives of prompt tokens are needed: for `prompt_logprobs`, and for `echo` with `logprobs`."""
    wanted = [
        value for value in (request.prompt_logprobs, request.logprobs if request.echo else None) if value is not None
    ]
    return max(wanted, default=None)


def _echoes(request: CompletionRequest, generation: Generation) -> list[str]:
    """A text prompt is echoed as it came, token ids as their text."""
    if not request.echo:
        return []
    return [generation.text_of(number) for number in range(len(generation.prompts))]
