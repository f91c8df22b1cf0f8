"""Both sides with HTTP between them: the same answer, and refusals that arrive as the errors they were."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace

import httpx
import numpy as np
import pytest

from privacy.split.made import CONTEXT, made, plain_logits, served

# isort: split
from backends.twins import draw
from headrace.privacy.split.blocks import Blocks, StateLost
from headrace.privacy.split.client import SplitModel
from headrace.privacy.split.piece import STEP
from headrace.privacy.split.remote import Remote
from headrace.privacy.split.service import FAILED
from headrace.spec.errors import ContextExceeded, EngineStopped, HeadraceError, InvalidRequest

SPEC, STORE = made("grouped-query")
TOKENS = draw(29, seed=5)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    blocks = Blocks(SPEC, STORE, 1, slots=1, context=CONTEXT, threads=1)
    with served(blocks) as url:
        yield url
    blocks.close()


def test_logits_over_http_have_the_plain_models_bits(url: str) -> None:
    with Remote(url) as server:
        server.check(SPEC, "twin", 1)
        model = SplitModel(SPEC, STORE, 1, server, context=CONTEXT, threads=1)
        wanted = plain_logits(SPEC, STORE, TOKENS)
        found = [model.append(TOKENS[a:b], every=True) for a, b in ((0, 20), (20, 29))]
        np.testing.assert_array_equal(np.concatenate(found), wanted)
        assert (model.carried.tokens, model.carried.messages) == (29, 2)
        model.close()


def test_a_server_of_something_else_is_refused_by_name(url: str) -> None:
    with Remote(url) as server:
        for named, ours in (("k", (SPEC, "twin", 0)), ("model", (SPEC, "other", 1))):
            with pytest.raises(InvalidRequest, match=f"server's {named} is"):
                server.check(*ours)
        with pytest.raises(InvalidRequest, match="server's hidden is 32"):
            server.check(replace(SPEC, hidden=64), "twin", 1)


def test_refusals_arrive_as_what_they_were(url: str) -> None:
    states = np.zeros((2, SPEC.hidden), np.float32)
    with Remote(url) as server:
        with pytest.raises(StateLost, match="begin the sequence again"):
            server.run("a", 5, states)
        with pytest.raises(ContextExceeded, match=str(CONTEXT)):
            server.run("a", CONTEXT - 1, states)
        with pytest.raises(InvalidRequest, match="finite"):
            server.run("a", 0, states * np.nan)
        with pytest.raises(InvalidRequest, match=f"{STEP} states"):
            server.run("a", 0, np.zeros((STEP + 1, SPEC.hidden), np.float32))
    for path, body in (("/split/a?start=x", b""), ("/split/a", b""), ("/split/a?start=0", b"123")):
        reply = httpx.post(url + path, content=body)
        assert reply.status_code == 400 and reply.json()["error"].endswith(("first state.", "send float32."))


@pytest.mark.parametrize("failure", [RuntimeError("arena at /srv/weights lost"), HeadraceError("/srv/weights lost")])
def test_what_failed_on_the_server_is_for_its_log_alone(failure: Exception, caplog: pytest.LogCaptureFixture) -> None:
    def lost(*_: object) -> None:
        raise failure

    blocks = Blocks(SPEC, STORE, 1, slots=1, context=CONTEXT, threads=1)
    blocks._piece.states = lost  # type: ignore[assignment,method-assign]
    with served(blocks) as url, Remote(url) as server, pytest.raises(EngineStopped) as told:
        server.run("a", 0, np.zeros((2, SPEC.hidden), np.float32))
    blocks.close()
    assert str(told.value) == FAILED and f"{failure}" in caplog.text


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Remote(f"http://127.0.0.1:{port}") as server, pytest.raises(EngineStopped, match="split serve"):
        server.check(SPEC, "twin", 1)
