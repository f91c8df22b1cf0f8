"""`headrace serve`: a model behind an OpenAI-compatible server."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli import generation as g
from headrace.cli.flags import with_flags
from headrace.cli.show import note
from headrace.server.config import ServerConfig
from headrace.spec.errors import HeadraceError
from headrace.spec.options import EngineOptions

YIELDING = 17
"""How much nicer than the engine's process the server is: a step has the first right to the cores.

Linux weighs it 23 to a step's 1,024: a server that is never idle costs a step about 2 % of a core. Delivering
a step's tokens takes it about a millisecond, which it gets at once, because it slept before.
"""

Embedder = Annotated[str | None, typer.Option(help="Model that answers /v1/embeddings (default: the served one).")]


@with_flags(server=ServerConfig, options=EngineOptions)
def serve(
    model: g.ModelName = g.DEFAULT_MODEL,
    embedder: Embedder = None,
    server: ServerConfig = ServerConfig(),
    options: EngineOptions = EngineOptions(),
) -> None:
    """Serve a model over HTTP: chat, completions, embeddings, metrics. Ctrl-C or SIGTERM drains and ends."""
    from headrace.model.catalogue import resolve
    from headrace.privacy.veil.notice import Notice
    from headrace.server.keys import KeyRing
    from headrace.server.labels import Labels
    from headrace.server.serve import bind
    from headrace.server.serve import serve as serve_http

    if embedder == model:
        raise HeadraceError(f"--embedder {model} is the served model, which embeds by itself; leave --embedder out.")
    Labels.read(server, KeyRing.read(server.api_keys))  # refused here, before minutes of loading
    plain = replace(options, adapter=())  # the adapters are the served model's
    with ExitStack() as stack:
        listener = stack.enter_context(bind(server))
        engine = stack.enter_context(g.loaded_engine(model, options, remote=True))
        encoder = stack.enter_context(g.loaded_engine(embedder, plain, remote=True)) if embedder else None
        os.nice(YIELDING)
        notice = Notice.of(resolve(model))
        name = server.model_name or served_name(model, engine.model_name)
        code = serve_http(
            engine,
            replace(server, model_name=name),
            encoder,
            ready=lambda url: note(f"{name} answers at {url}/v1"),
            listener=listener,
            notice=notice,
        )
    if code:
        raise typer.Exit(code)


def served_name(asked: str, own: str) -> str:
    """A model asked for by name is served under that name, one given by its path under its own."""
    return own if Path(asked).expanduser().exists() else asked
