"""Where the time of one request to a server goes: the engine's marks and the client's on one clock.

The server runs as under `headrace serve`, its engine in a process of its own. What it does for a token while the
engine computes the next one takes no time of its own here; where cores are short it makes the kernels slower.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any, cast

from headrace.cli.profile import parts_of, prompt, shares
from headrace.cli.serve import YIELDING
from headrace.spec.errors import HeadraceError

if TYPE_CHECKING:
    from headrace.engine.sequence import SequenceHandle
    from headrace.engine.surface import Surface
    from headrace.spec.events import StepEvent


@dataclass(slots=True)
class Marks:
    """Seconds since the epoch, as the steps' own: both processes read this clock."""

    sent: float = 0.0
    opening: float = 0.0
    opened: float = 0.0
    received: float = 0.0


class MarkedEngine:
    """`engine`, with marks around the opening of a sequence."""

    def __init__(self, engine: Surface, marks: Marks) -> None:
        self._engine, self._marks = engine, marks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def open(self, *prompt: Any, **how: Any) -> SequenceHandle:
        self._marks.opening = time.time()
        handle = await self._engine.open(*prompt, **how)
        self._marks.opened = time.time()
        return handle


def profile_served(engine: Surface, prompt_words: int, new_tokens: int, seed: int) -> dict[str, Any]:
    """One greedy request over HTTP, streamed, that `profile` sends to an engine without one.

    `http_share` is of what stands before and behind the engine's own work, `attributed` of all that a part names.
    """
    marks = Marks()
    events: list[StepEvent] = []
    with serving(cast("Surface", MarkedEngine(engine, marks))) as (host, port):
        adapter = next(iter(engine.adapters), None)
        request(host, port, marks, prompt(prompt_words, seed + 1), 4, adapter)
        stop_listening = engine.events.listen(events.append)
        request(host, port, marks, prompt(prompt_words, seed), new_tokens, adapter)
        stop_listening()
    parts = spans(marks, events)
    wall = marks.received - marks.sent
    http = sum(seconds for part, seconds in parts.items() if part.startswith("HTTP"))
    return {
        "parts": [asdict(share) for share in shares(parts, wall)],
        "http_share": http / wall,
        "attributed": 1 - parts["between steps"] / wall,
    }


def spans(marks: Marks, events: list[StepEvent]) -> dict[str, float]:
    """Seconds by part: one behind the other they are the whole time from sending to the last byte."""
    first = next(index for index, event in enumerate(events) if event.sampled_tokens)
    began = events[0].at - events[0].schedule_seconds - events[0].run_seconds - events[0].sample_seconds
    prefilled, ended = events[first].at, events[-1].at
    return {
        "HTTP and JSON, until the prompt is read": marks.opening - marks.sent,
        "tokenise and open": marks.opened - marks.opening,
        "HTTP and JSON, to the engine": began - marks.opened,
        "prefill": prefilled - began,
        **parts_of(events[first + 1 :], {}, ended - prefilled),
        "HTTP and JSON, from the last token on": marks.received - ended,
    }


@contextmanager
def serving(engine: Surface) -> Iterator[tuple[str, int]]:
    """A server over `engine` on a free port, in a thread that yields to the engine as `headrace serve` does."""
    import uvicorn

    from headrace.server.app import create_app
    from headrace.server.config import ServerConfig
    from headrace.server.serve import bind, settings

    config = ServerConfig(port=0)
    with bind(config) as listener:
        listener.listen()
        server = uvicorn.Server(settings(create_app(engine, config), config))

        def run() -> None:
            os.nice(YIELDING)
            server.run(sockets=[listener])

        thread = threading.Thread(target=run, name="headrace-server", daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[:2]
        finally:
            server.should_exit = True
            thread.join()


def request(host: str, port: int, marks: Marks, text: str, new_tokens: int, adapter: str | None = None) -> None:
    """Sends it and reads the streamed reply as a client would, every event decoded."""
    body = {"prompt": text, "max_tokens": new_tokens, "temperature": 0, "ignore_eos": True, "stream": True}
    body["adapter"] = adapter
    connection = HTTPConnection(host, port, timeout=600)
    marks.sent = time.time()
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    reply = connection.getresponse()
    events = [json.loads(line[6:]) for line in reply if line.startswith(b"data: {")]
    marks.received = time.time()
    connection.close()
    if reply.status != 200:
        raise HeadraceError(f"The server of the profile refused its request with status {reply.status}; see its log.")
    if failed := next((event["error"]["message"] for event in events if "error" in event), None):
        raise HeadraceError(f"The server of the profile failed ({failed}); see its log.")
