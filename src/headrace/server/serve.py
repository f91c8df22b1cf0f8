"""`serve`: listen until told to stop, drain, and say by the exit status whether the engine lived."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from headrace.server.app import create_app
from headrace.server.config import ServerConfig
from headrace.server.lifecycle import Lifecycle
from headrace.spec.errors import HeadraceError

if TYPE_CHECKING:
    from headrace.engine.surface import Surface

log = logging.getLogger("headrace.server")
_POLL = 0.25
_AFTER_DEATH = 2.0
"""Seconds in which requests are told that the engine died, before the process ends."""


def serve(
    engine: Surface,
    config: ServerConfig | None = None,
    embedder: Surface | None = None,
    ready: Callable[[str], None] | None = None,
) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit status: 0, or 1 when the engine died.

    `ready(url)` is called once requests are taken. Call it from the main thread. On a signal new requests
    get 503 and accepted ones may finish for `drain_seconds`; a second signal ends them at once.
    Raises HeadraceError when the address cannot be had.
    """
    config = config or ServerConfig()
    listener = _listen(config)
    app = create_app(engine, config, embedder)
    settings = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=5
    )
    engines = [engine] if embedder is None else [engine, embedder]
    return asyncio.run(_run(_Server(settings), listener, app.state.service.life, engines, config, ready))


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


def _listen(config: ServerConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        return socket.create_server((config.host, config.port), family=family, backlog=2048)
    except OSError as error:
        where = f"{config.host}:{config.port}"
        raise HeadraceError(f"Cannot listen on {where} ({error.strerror}); choose another --host or --port.") from error


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
