"""The server's one frozen configuration; the command line derives its flags from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from headrace.spec.errors import InvalidRequest


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """How the server listens and what it refuses. `help` metadata is the flag's help text.

    The length of the queue is the engine's (`EngineOptions.queue`).
    """

    host: str = _option("127.0.0.1", "Address to listen on; 0.0.0.0 opens the server to the network.")
    port: int = _option(8000, "Port to listen on; 0 takes a free one.")
    api_keys: str | None = _option(None, "File of `key principal` lines; without it everyone is `local`.")
    labels: str | None = _option(None, "Policy (TOML) by which each key's principal runs at a label; docs/labels.md.")
    model_name: str | None = _option(None, "Name under which the model is served (default: the model's own).")
    max_request_bytes: int = _option(8 * 2**20, "Largest request body in bytes; a larger one is refused with 413.")
    max_choices: int = _option(128, "Most choices of one request: its prompts times `n`.")
    body_seconds: float = _option(30.0, "Longest wait for a request's headers, then for its body (408).")
    request_seconds: float = _option(600.0, "Longest time one request may take; then 504.")
    drain_seconds: float = _option(30.0, "After SIGTERM, how long accepted requests may finish.")

    def __post_init__(self) -> None:
        for name in ("max_request_bytes", "max_choices"):
            if (count := getattr(self, name)) < 1:
                raise _refused(name, count, "at least 1")
        for name in ("body_seconds", "request_seconds"):
            if not (seconds := getattr(self, name)) > 0:
                raise _refused(name, seconds, "more than 0")
        if not self.drain_seconds >= 0:
            raise _refused("drain_seconds", self.drain_seconds, "0 or more")


def _refused(name: str, value: float, wanted: str) -> InvalidRequest:
    return InvalidRequest(f"--{name.replace('_', '-')} is {value:g}; give {wanted}.", name)
