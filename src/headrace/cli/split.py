"""`headrace split`: a model's first blocks and head here, its middle on a server that sees states only."""

from __future__ import annotations

import secrets
import signal
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import generation as g
from headrace.cli.show import note, print_json, progress_bars, write

if TYPE_CHECKING:
    from headrace.model.loading import LoadedModel

app = typer.Typer(
    no_args_is_help=True,
    help="Keep embedding, first blocks and head here and have the other blocks run elsewhere. States tell the tokens"
    " they were made of: see docs/split.md before you rely on it.",
)
Model = Annotated[str, typer.Argument(help="Catalogue name, .gguf file or model folder; the same on both sides.")]
Depth = Annotated[int, typer.Option("--k", min=0, help="Blocks that the client keeps.")]
Context = Annotated[int, typer.Option(min=1, help="Longest sequence in tokens.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Compute threads; alike on both sides for equal bits.")]
Slots = Annotated[int, typer.Option(min=1, help="Sequences whose states are held at the same time.")]
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 opens the server to the network.")]
Port = Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")]
Url = Annotated[str, typer.Option(help="Base of the `split serve` that runs the other blocks.")]
Ratio = Annotated[float, typer.Option("--noise", help="Norm of Gaussian noise over that of each state; 0 is none.")]
Raw = Annotated[bool, typer.Option("--raw", help="Complete the text as it is, without the chat template.")]


@app.command()
def serve(
    model: Model,
    k: Depth = 2,
    host: Host = "127.0.0.1",
    port: Port = 8002,
    slots: Slots = 4,
    context: Context = 1024,
    threads: Threads = None,
) -> None:
    """Run the blocks after the first k for clients that keep the rest. Ctrl-C or SIGTERM ends it."""
    import uvicorn

    from headrace.privacy.split.blocks import Blocks
    from headrace.privacy.split.service import create_app
    from headrace.server.config import ServerConfig
    from headrace.server.serve import bind, url_of

    with bind(ServerConfig(host=host, port=port)) as listener:
        loaded = load(model)
        blocks = Blocks(loaded.spec, loaded.weights, k, slots, context, threads)
        signal.signal(signal.SIGTERM, ended)  # raised anew by uvicorn, when it has stopped
        config = uvicorn.Config(create_app(blocks, loaded.name), log_level="warning", timeout_graceful_shutdown=5)
        listener.listen()
        note(f"split:{k} of {loaded.name} answers at {url_of(listener)}")
        try:
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            blocks.close()


@app.command()
def run(
    model: Model,
    prompt: Annotated[str, typer.Argument(help="The prompt.")],
    k: Depth = 2,
    url: Url = "http://127.0.0.1:8002",
    noise: Ratio = 0.0,
    max_tokens: g.MaxTokens = 256,
    temperature: g.Temperature = 0.0,
    seed: g.Seed = None,
    context: Context = 1024,
    threads: Threads = None,
    raw: Raw = False,
    json: g.Json = False,
) -> None:
    """Answer one prompt; the server is sent a state a token, which with the public weights tells the token."""
    from headrace.engine.text import TextStream
    from headrace.privacy.split.client import SplitModel
    from headrace.privacy.split.noise import Noise
    from headrace.privacy.split.remote import Remote
    from headrace.spec.sampling import Sampling

    loaded = load(model)
    given, text = encoded(loaded, g.checked_text(prompt), raw), TextStream(tokenizer_of(loaded), (), ())
    drawn = secrets.randbits(63) if seed is None else seed
    with Remote(url) as server:
        server.check(loaded.spec, loaded.name, k)
        split = SplitModel(loaded.spec, loaded.weights, k, server, Noise(noise), context, threads)
        tokens: list[int] = []
        for token in split.generate(given, max_tokens, Sampling(temperature=temperature), drawn):
            tokens.append(token)
            shown = "" if token in loaded.spec.eos else text.push(token)
            write("" if json else shown)
        facts: dict[str, Any] = {"profile": split.profile, "seed": drawn, "carried": asdict(split.carried)}
        split.close()
    if json:
        print_json({"text": text.text, "token_ids": tokens} | facts)
        return
    write("\n")
    note(f"{split.profile}: {len(tokens)} tokens; {split.carried.sent:,} bytes of states sent, as many received.")


def ended(*_: Any) -> None:
    raise typer.Exit(0)


def load(model: str) -> LoadedModel:
    from headrace.model.catalogue import resolve
    from headrace.model.loading import load_model
    from headrace.spec.ledger import Ledger

    with progress_bars() as report:
        return load_model(resolve(model, report), Ledger())


def tokenizer_of(loaded: LoadedModel) -> Any:
    from headrace.spec.errors import UnsupportedModel

    if loaded.tokenizer is None:
        raise UnsupportedModel(f"{loaded.name} has no tokenizer; give a model with one.")
    return loaded.tokenizer


def encoded(loaded: LoadedModel, prompt: str, raw: bool) -> list[int]:
    tokenizer = tokenizer_of(loaded)
    if raw or tokenizer.chat_template is None:
        return tokenizer.encode(prompt)
    return tokenizer.encode_chat([{"role": "user", "content": prompt}])
