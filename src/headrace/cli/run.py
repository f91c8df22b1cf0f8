"""`headrace run`: one answer to one prompt."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import generation as g
from headrace.cli.flags import with_flags
from headrace.cli.show import note, print_json, write
from headrace.spec.errors import InvalidRequest
from headrace.spec.options import EngineOptions

if TYPE_CHECKING:
    from headrace.engine.answer import Extension, Step

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
    raw: Raw = False,
    json: g.Json = False,
    options: EngineOptions = EngineOptions(),
) -> None:
    """Answer one prompt and print what it took."""
    model, prompt = model_and_prompt(words)
    sampling = g.sampling_of(temperature, top_k, top_p, min_p, repetition_penalty)
    ending = g.stop_of(max_tokens, stop)
    with g.loaded_engine(model, options, quiet=json) as engine:
        chat = not raw and engine.tokenizer is not None and engine.tokenizer.chat_template is not None
        content = [{"role": "user", "content": prompt}] if chat else prompt
        with engine.open_now(content, seed=seed, sampling=sampling) as sequence:
            extension = sequence.extend(ending)
            if json:
                print_json(g.as_json(engine, sequence.seed, extension.result(), sequence.prompt_tokens))
                return
            step = stream(extension)
            write("\n")
        note(g.figures(engine, step, sequence.prompt_tokens))


def model_and_prompt(words: list[str]) -> tuple[str, str]:
    """One word is the prompt; of two, the first is the model."""
    if len(words) > 2:
        raise InvalidRequest(f"run takes a model and a prompt, not {len(words)} arguments; put the prompt in quotes.")
    model, prompt = (g.DEFAULT_MODEL, words[0]) if len(words) == 1 else (words[0], words[1])
    return model, sys.stdin.read() if prompt == "-" else prompt


def stream(extension: Extension, show: Callable[[str], None] = write) -> Step:
    """Shows the answer as it comes. Ctrl-C cancels the generation and keeps what there is."""
    try:
        for token in extension:
            show(token.text)
    except KeyboardInterrupt:
        extension.cancel()
    return extension.result()
