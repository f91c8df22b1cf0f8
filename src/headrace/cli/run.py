"""`headrace run`: one answer to one prompt."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import generation as g
from headrace.cli.flags import with_flags
from headrace.cli.show import EXIT_INTERRUPTED, note, print_json, write
from headrace.spec.errors import InvalidRequest
from headrace.spec.options import EngineOptions

if TYPE_CHECKING:
    from headrace.engine.answer import Extension, Step
    from headrace.engine.sequence import SequenceHandle
    from headrace.engine.surface import Surface

Words = Annotated[
    list[str],
    typer.Argument(metavar="[MODEL] PROMPT", help="The prompt, '-' to read it from stdin; before it a model's name."),
]
Raw = Annotated[bool, typer.Option("--raw", help="Complete the text as it is, without the chat template.")]


@with_flags(options=EngineOptions)
def run(
    words: Words,
    max_tokens: g.MaxTokens = 256,
    temperature: g.Temperature = 0.0,
    top_k: g.TopK = 0,
    top_p: g.TopP = 1.0,
    min_p: g.MinP = 0.0,
    repetition_penalty: g.RepetitionPenalty = 1.0,
    stop: g.StopText = [],  # noqa: B006
    seed: g.Seed = None,
    adapter_scale: g.AdapterScale = 1.0,
    raw: Raw = False,
    json: g.Json = False,
    options: EngineOptions = EngineOptions(),
) -> None:
    """Answer one prompt and print what it took."""
    model, prompt = model_and_prompt(words, raw)
    sampling = g.sampling_of(temperature, top_k, top_p, min_p, repetition_penalty)
    ending, adapted = g.stop_of(max_tokens, stop), g.adapter_of(options, adapter_scale)
    with g.loaded_engine(model, options, quiet=json) as engine:
        chat = not raw and engine.tokenizer is not None and engine.tokenizer.chat_template is not None
        content = [{"role": "user", "content": prompt}] if chat else prompt
        with engine.open_now(content, seed=seed, sampling=sampling, **adapted) as sequence:
            step = stream(sequence.extend(ending), silent if json else write)
            show(engine, sequence, step, json)
    if step.finish_reason == "cancelled":
        raise typer.Exit(EXIT_INTERRUPTED)


def show(engine: Surface, sequence: SequenceHandle, step: Step, json: bool) -> None:
    if json:
        print_json(g.as_json(engine, sequence.seed, step, sequence.prompt_tokens))
    else:
        write("\n")
        note(g.figures(engine, step, sequence.prompt_tokens, sequence.seed if sequence.sampling.temperature else None))


def model_and_prompt(words: list[str], raw: bool = False) -> tuple[str, str]:
    """One word is the prompt; of two, the first is the model. Raises InvalidRequest where no prompt is left."""
    if len(words) > 2:
        raise InvalidRequest(f"run takes a model and a prompt, not {len(words)} arguments; put the prompt in quotes.")
    model, prompt = (g.DEFAULT_MODEL, words[0]) if len(words) == 1 else (words[0], words[1])
    if len(words) == 1 and is_model(prompt):
        raise InvalidRequest(f"{prompt} is a model; add a prompt, or '-' to read it from stdin.", "prompt")
    if len(words) == 1 and prompt.endswith(".gguf") and not prompt[:-5].strip().count(" "):
        raise InvalidRequest(f"{prompt} does not exist; give the path of a model's file, and behind it a prompt.")
    text = g.decoded(sys.stdin.buffer.read()) if prompt == "-" else g.checked_text(prompt)
    if not (text if raw else text.strip()):
        raise InvalidRequest("The prompt is empty; give some text.", "prompt")
    return model, text


def is_model(word: str) -> bool:
    """Whether a lone word names a model: one of the catalogue, a pulled one, or a GGUF file."""
    from headrace.model.catalogue import ENTRIES, find_local

    if word.endswith(".gguf"):
        return os.path.isfile(word)
    return word in ENTRIES or find_local(word) is not None


def stream(extension: Extension, show: Callable[[str], None] = write) -> Step:
    """Shows the answer as it comes. Ctrl-C cancels the generation and keeps what there is."""
    shown = ""
    try:
        for token in extension:
            shown += token.text
            show(token.text)
    except KeyboardInterrupt:
        extension.cancel()
    step = extension.result()
    if step.text.startswith(shown):
        show(step.text[len(shown) :])
    return step


def silent(text: str) -> None:
    return None
