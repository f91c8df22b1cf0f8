"""The process that serves: its address, its log, and what it refuses before and while it starts."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from headrace.engine.engine import Engine
from headrace.server.app import create_app
from headrace.server.config import ServerConfig
from headrace.server.keys import KeyRing
from headrace.server.serve import bind
from headrace.server.service import SPARE_REQUESTS
from headrace.spec.errors import HeadraceError
from headrace.spec.options import EngineOptions
from server.twin import serving

ROOT = Path(__file__).resolve().parents[2]
TEXT = "/v1/completions"


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "headrace.cli", "serve", *words]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}


@contextmanager
def started(log: Path, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`headrace serve` with stderr in `log`; the process and its URL."""

    def default_signals() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    with log.open("wb") as stderr:
        process = subprocess.Popen(command(*words), stderr=stderr, env=environment(), preexec_fn=default_signals)
    try:
        while " answers at " not in log.read_text("utf-8"):
            assert process.poll() is None, log.read_text("utf-8")
            time.sleep(0.02)
        yield process, log.read_text("utf-8").split(" answers at ")[1].split("/v1")[0]
    finally:
        process.kill()
        process.wait()


def test_the_user_is_logged_and_a_silent_connection_is_closed(twin: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    words = (str(twin), "--port", "0", "--threads", "1", "--state-memory", "8", "--body-seconds", "0.5")
    with started(log, *words) as (process, url):
        with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=30) as silent:
            silent.sendall(b"GET / HTTP/1.1\r\nHost: ")
            assert silent.recv(1) == b"", "closed without an answer"
        reply = httpx.post(f"{url}{TEXT}", json={"prompt": "x", "max_tokens": 1, "user": "alice\n"}, timeout=60)
        assert reply.status_code == 200
        reply = httpx.post(f"{url}/v1/embeddings", json={"input": "x", "user": "bob"}, timeout=60)
        assert reply.status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    said = log.read_text("utf-8")
    assert r"principal local, user 'alice\n'" in said and "principal local, user 'bob'" in said


def refused(*words: str) -> str:
    done = subprocess.run(command(*words), capture_output=True, text=True, env=environment())
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_the_address_is_had_before_a_model_is_loaded(tmp_path: Path) -> None:
    """The model does not exist: were it looked for first, the refusal would be about it."""
    missing = str(tmp_path / "missing.gguf")
    assert "0-65535" in refused(missing, "--port", "99999")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "another --host or --port" in refused(missing, "--port", str(taken.getsockname()[1]))
    keys = tmp_path / "keys"
    keys.touch()
    assert "has no key" in refused(missing, "--port", "0", "--api-keys", str(keys))
    assert "leave --embedder out" in refused(missing, "--port", "0", "--embedder", missing)


@pytest.mark.parametrize("host", ["256.1.1.1", "a" * 300])
def test_a_host_that_is_none(host: str) -> None:
    with pytest.raises(HeadraceError, match="choose another --host"):
        bind(ServerConfig(host=host, port=0))


def test_an_interrupt_while_the_model_loads_ends_at_once(tmp_path: Path) -> None:
    """The model's file is a pipe that nobody writes to, so that its loading never ends by itself."""
    model = tmp_path / "model.gguf"
    os.mkfifo(model)
    process = subprocess.Popen(
        command(str(model), "--port", "0"),
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    children = Path(f"/proc/{process.pid}/task")
    if not children.is_dir():
        process.kill()
        pytest.skip("needs /proc to see when the process that loads has started")

    def loading() -> bool:
        kids = " ".join(file.read_text() for file in children.glob("*/children")).split()
        return any("spawn_main" in Path(f"/proc/{kid}/cmdline").read_text() for kid in kids)

    while not loading():
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "Interrupted while the model was loading.\n"


def test_two_models_of_one_name_are_refused(engine: Engine, twin: Path) -> None:
    with Engine.load(twin, EngineOptions(threads=1, state_memory=8)) as other:
        with pytest.raises(HeadraceError, match="--model-name"):
            create_app(engine, ServerConfig(), other)
        with serving(engine, ServerConfig(model_name="first"), other) as url:
            assert httpx.post(f"{url}/v1/embeddings", json={"input": "x"}).json()["model"] == other.model_name
            asked = {"model": "first", "prompt": "x", "max_tokens": 1, "logprobs": 1}
            assert httpx.post(f"{url}{TEXT}", json=asked).status_code == 200


def test_a_body_needs_its_content_type(http: httpx.Client) -> None:
    """Else a page of another origin could post here without asking."""
    reply = http.post(TEXT, content=b'{"prompt": "x", "max_tokens": 1}')
    assert "content-type" not in reply.request.headers
    assert reply.status_code == 415 and "Content-Type: application/json" in reply.json()["error"]["message"]


@pytest.mark.parametrize("key", ["schlüssel", "a\x7fb"])
def test_a_key_that_no_header_carries_is_refused(key: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"good alice\n{key} bob\n", "utf-8")
    with pytest.raises(HeadraceError, match="line 2"):
        KeyRing.read(file)


def test_requests_beyond_the_limit_are_429(engine: Engine) -> None:
    """The limit is far above what the engine queues; here it is lowered to nothing."""
    app = create_app(engine, ServerConfig())
    assert app.state.service.most_requests == engine.options.running + engine.options.queue + SPARE_REQUESTS
    app.state.service.most_requests = 0

    async def ask() -> tuple[httpx.Response, httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
            return await client.post(TEXT, json={"prompt": "x"}), await client.get("/health")

    reply, health = asyncio.run(ask())
    assert reply.status_code == 429 and int(reply.headers["retry-after"]) >= 1
    assert reply.json()["error"]["code"] == "overloaded" and health.status_code == 200
