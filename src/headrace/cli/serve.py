"""`headrace serve`: a model behind an OpenAI-compatible server."""

from __future__ import annotations

from headrace.cli import generation as g
from headrace.cli.flags import with_flags
from headrace.server.config import ServerConfig
from headrace.spec.options import EngineOptions


@with_flags(server=ServerConfig, options=EngineOptions)
def serve(
    model: g.ModelName = g.DEFAULT_MODEL,
    server: ServerConfig = ServerConfig(),
    options: EngineOptions = EngineOptions(),
) -> None:
    """Serve a model over HTTP: chat, completions, embeddings, metrics."""
