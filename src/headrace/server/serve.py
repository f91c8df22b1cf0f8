"""`serve`: listen until told to stop, drain, and say by the exit status whether the engine lived."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from headrace.server.app import create_app
from headrace.server.config import ServerConfig
from headrace.server.lifecycle import Lifecycle
from headrace.spec.errors import HeadraceError

if TYPE_CHECKING:
    from headrace.engine.surface import Surface
    from headrace.privacy.veil.notice import Notice

log = logging.getLogger("headrace.server")
_POLL = 0.25
_AFTER_DEATH = 2.0
"""Seconds in which requests are told that the engine died, before the process ends."""


def serve(
    engine: Surface,
    config: ServerConfig | None = None,
    embedder: Surface | None = None,
    ready: Callable[[str], None] | None = None,
    listener: socket.socket | None = None,
    notice: Notice | None = None,
) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit status: 0, or 1 when the engine died.

    `listener` is what `bind` gave, for a caller who wants the address before the model is loaded.
    `ready(url)` is called once requests are taken. Call it from the main thread. On a signal new requests
    get 503 and accepted ones may finish for `drain_seconds`; a second signal ends them at once.
    `notice` is a veiled model's, for every response to carry.
    Raises HeadraceError when the address cannot be had.
    """
    config = config or ServerConfig()
    engines = [engine] if embedder is None else [engine, embedder]
    listener = listener or bind(config)
    with listener:
        _show_log()
        return _serve(create_app(engine, config, embedder, notice), config, engines, ready, listener)


def bind(config: ServerConfig) -> socket.socket:
    """Takes the address without listening yet, so that nobody waits on a model that still loads.

    Raises HeadraceError when the address cannot be had.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in config.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
    except (OSError, OverflowError, UnicodeError) as error:
        listener.close()
        raise _no_address(config, error) from error
    return listener


def settings(app: ASGIApp, config: ServerConfig) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=partial(_Protocol, header_seconds=config.body_seconds),  # type: ignore[arg-type]
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )


def _serve(
    app: Starlette,
    config: ServerConfig,
    engines: list[Surface],
    ready: Callable[[str], None] | None,
    listener: socket.socket,
) -> int:
    try:
        listener.listen(2048)
    except OSError as error:
        raise _no_address(config, error) from error
    return asyncio.run(_run(_Server(settings(app, config)), listener, app.state.service.life, engines, config, ready))


class _Protocol(H11Protocol):
    """Closes a connection whose first request has not begun in time: uvicorn limits only the pauses after one."""

    def __init__(self, *values: Any, header_seconds: float, **named: Any) -> None:
        super().__init__(*values, **named)
        self._header_seconds = header_seconds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline = self.loop.call_later(self._header_seconds, self._close_unused)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        super().connection_lost(exc)

    def _close_unused(self) -> None:
        if self.cycle is None:
            self.transport.close()


class _Server(uvicorn.Server):
    """Leaves signals to `_run`: uvicorn would close the listener before the drain and die by the signal after it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _run(
    server: _Server,
    listener: socket.socket,
    life: Lifecycle,
    engines: list[Surface],
    config: ServerConfig,
    ready: Callable[[str], None] | None,
) -> int:
    stop = _stop_on_signals(life)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if ready is not None and server.started:
        ready(url_of(listener))
    reason = await _until_stopped(stop, serving, engines)
    if reason is not None:
        log.error("The engine stopped: %s", reason)
    finished = await life.drain(config.drain_seconds if reason is None else _AFTER_DEATH)
    if not finished:
        log.warning("Requests were still running after %g seconds and were ended.", config.drain_seconds)
    server.should_exit = True
    await serving
    return 0 if reason is None else 1


def _stop_on_signals(life: Lifecycle) -> asyncio.Event:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            life.abort()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop


async def _until_stopped(stop: asyncio.Event, serving: asyncio.Task[None], engines: list[Surface]) -> str | None:
    """Waits for a signal (None) or for an engine's end (its reason)."""
    while not stop.is_set() and not serving.done():
        for engine in engines:
            if reason := engine.healthy():
                return reason
        try:
            await asyncio.wait_for(stop.wait(), _POLL)
        except TimeoutError:
            continue
    return None


def _show_log() -> None:
    """The server's own log goes to stderr from INFO on, unless the program has set logging up itself."""
    if not log.hasHandlers():
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)


def _no_address(config: ServerConfig, error: Exception) -> HeadraceError:
    reason = getattr(error, "strerror", None) or error
    where = f"{config.host}:{config.port}"
    return HeadraceError(f"Cannot listen on {where} ({str(reason).rstrip('.')}); choose another --host or --port.")


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
