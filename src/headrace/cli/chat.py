"""`headrace chat`: a conversation that keeps its sequence, so that a turn computes only its own tokens."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import generation as g
from headrace.cli.flags import with_flags
from headrace.cli.run import silent, stream
from headrace.cli.show import note, print_json_line, prompt_mark, write
from headrace.spec.errors import ContextExceeded, HeadraceError, InvalidRequest, UnsupportedModel, embeds_only
from headrace.spec.options import EngineOptions

if TYPE_CHECKING:
    from headrace.engine.answer import Step
    from headrace.engine.sequence import SequenceHandle
    from headrace.engine.surface import Surface
    from headrace.spec.sampling import Sampling, Stop

COMMANDS = {
    "/help": "lists these commands",
    "/reset": "forgets the conversation and starts over",
    "/exit": "ends, as /quit and Ctrl-D do",
}

System = Annotated[str | None, typer.Option(help="System message that stands before the conversation.")]


@with_flags(options=EngineOptions)
def chat(
    model: g.ModelName = g.DEFAULT_MODEL,
    system: System = None,
    max_tokens: g.MaxTokens = 512,
    temperature: g.Temperature = 0.0,
    top_k: g.TopK = 0,
    top_p: g.TopP = 1.0,
    min_p: g.MinP = 0.0,
    repetition_penalty: g.RepetitionPenalty = 1.0,
    stop: g.StopText = [],  # noqa: B006
    seed: g.Seed = None,
    adapter_scale: g.AdapterScale = 1.0,
    json: g.Json = False,
    options: EngineOptions = EngineOptions(),
) -> None:
    """Talk to a model, line by line; /help lists the commands, /exit or Ctrl-D ends."""
    system = system and g.checked_text(system)
    sampling = g.sampling_of(temperature, top_k, top_p, min_p, repetition_penalty)
    adapted = g.adapter_of(options, adapter_scale)
    with g.loaded_engine(model, options, quiet=json) as engine:
        conversation = Conversation(engine, sampling, g.stop_of(max_tokens, stop), system, seed, adapted)
        try:
            converse(conversation, json)
        finally:
            conversation.reset()


class Conversation:
    """Messages and the one live sequence that holds them.

    The chat template renders the whole conversation each turn. Where the new rendering begins with the
    old one and the answer as it was generated, only the rest is tokenised and appended; else (a
    template that rewrites earlier turns, an answer cut at a stop text, a message that names a control
    token) the conversation is opened anew.
    """

    def __init__(
        self,
        engine: Surface,
        sampling: Sampling,
        stop: Stop,
        system: str | None = None,
        seed: int | None = None,
        adapted: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        if not engine.spec.causal:
            raise UnsupportedModel(embeds_only(engine.model_name, "chat"))
        if engine.tokenizer is None or engine.tokenizer.chat_template is None:
            raise UnsupportedModel(f"{engine.model_name} has no chat template; use `headrace run --raw` with it.")
        self.engine, self._tokenizer = engine, engine.tokenizer
        self._stop, self._how = stop, {"seed": seed, "sampling": sampling, **adapted}
        self._system: list[dict[str, str]] = [{"role": "system", "content": system}] if system else []
        self._sequence: SequenceHandle | None = None
        self.messages: list[dict[str, str]] = []
        self._rendered = ""
        self.reset()

    def reset(self) -> None:
        if self._sequence is not None:
            self._sequence.drop()
        self._sequence, self._rendered, self.messages = None, "", list(self._system)

    @property
    def sequence(self) -> SequenceHandle | None:
        return self._sequence

    def ask(self, text: str, show: Callable[[str], None]) -> Step:
        """One turn; `show` gets the answer piece by piece. A turn that fails leaves the conversation as it was."""
        messages = [*self.messages, {"role": "user", "content": text}]
        rendered = self._tokenizer.apply_chat(messages)
        step = stream(self._continued(messages, rendered).extend(self._stop), show)
        self.messages = [*messages, {"role": "assistant", "content": step.text}]
        whole = self._tokenizer.decode(step.token_ids) == step.text
        self._rendered = rendered + step.text if whole else ""
        return step

    def _continued(self, messages: list[dict[str, str]], rendered: str) -> SequenceHandle:
        sequence = self._sequence
        goes_on = self._rendered and rendered.startswith(self._rendered)
        if sequence is not None and goes_on and not self._names_control(messages[-1]["content"]):
            rest = self._tokenizer.encode(rendered[len(self._rendered) :], bos=False)
            self._rendered = ""
            sequence.append(_without_end_token(rest, sequence.tokens, self._tokenizer.eos)).result()
            return sequence
        if sequence is not None:
            sequence.drop()
        self._sequence = self.engine.open_now(messages, **self._how)
        return self._sequence

    def _names_control(self, text: str) -> bool:
        """Whether a control token's name stands in `text`: tokenised as part of the template it would count as one."""
        return any(not self._tokenizer.token_bytes(token) for token in self._tokenizer.encode(text, bos=False))


def _without_end_token(rest: list[int], tokens: list[int], eos: tuple[int, ...]) -> list[int]:
    """The template closes an answer with the end token, which the model may have drawn itself."""
    drawn = bool(tokens and rest) and tokens[-1] == rest[0] and rest[0] in eos
    return rest[1:] if drawn else rest


def converse(conversation: Conversation, json: bool) -> None:
    while (line := read_line(quiet=json)) is not None:
        try:
            text = g.decoded(line).strip()
        except InvalidRequest as error:
            note(str(error))
            continue
        if text in ("/exit", "/quit"):
            return
        if re.fullmatch(r"/\w+", text.partition(" ")[0]):
            obey(conversation, text, json)
        elif text:
            take_turn(conversation, text, json)


def obey(conversation: Conversation, command: str, json: bool) -> None:
    if command == "/help":
        note("\n".join(f"{name:<8}{about}" for name, about in COMMANDS.items()))
    elif command == "/reset":
        conversation.reset()
        if not json:
            note("The conversation starts over.")
    else:
        note(f"{command} is no command; /help lists them.")


def read_line(quiet: bool) -> bytes | None:
    """The next line; None at the end of the input or Ctrl-C."""
    marked = sys.stdin.isatty() and not quiet
    if marked:
        prompt_mark("› ")
    try:
        line = sys.stdin.buffer.readline()
    except KeyboardInterrupt:
        line = b""
    if marked and not line:
        prompt_mark("\n")
    return line or None


def take_turn(conversation: Conversation, text: str, json: bool) -> None:
    engine = conversation.engine
    try:
        step = conversation.ask(text, silent if json else write)
    except HeadraceError as error:
        if engine.healthy() is not None:
            raise
        full = isinstance(error, ContextExceeded)
        note(str(error).rstrip(".") + ", or start over with /reset." if full else str(error))
        return
    assert conversation.sequence is not None
    before, seed = len(conversation.sequence) - len(step.token_ids), conversation.sequence.seed
    if json:
        print_json_line(g.as_json(engine, seed, step, before))
    else:
        write("\n")
        full = g.context_is_full(engine, step, before)
        drawn = seed if conversation.sequence.sampling.temperature else None
        note(g.figures(engine, step, before, drawn) + (" · /reset starts over" if full else ""))
