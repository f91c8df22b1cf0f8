"""Real parties, one process each: right results, a GELU decoder of two, rounds, a refused program that ends nothing."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from threading import Timer

import numpy as np
import pytest

from headrace.evidence import secret
from headrace.evidence.secret import EXACT
from headrace.model.loading import LoadedModel, ResidentStore
from headrace.privacy.mpc.environment import worker_python
from headrace.privacy.mpc.errors import PartiesFailed
from headrace.privacy.mpc.inference import SecretDecoder
from headrace.privacy.mpc.price import PROTOCOLS
from headrace.privacy.mpc.session import Session, Setup
from headrace.privacy.mpc.weights import Prepared, for_shares, plain_logits, shape_of

PYTHON = worker_python()
pytestmark = pytest.mark.skipif(
    PYTHON is None, reason="the environment of SPU is not here; `headrace mpc run` or the full claim 87 makes it"
)


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    assert PYTHON is not None
    with Session(PYTHON) as found:
        pids = found.open(Setup("semi2k"))
        assert len(set(pids)) == 2 and os.getpid() not in pids
        for pid in pids:
            os.kill(pid, 0)
        yield found


def test_parties_multiply_what_neither_knows(session: Session) -> None:
    x, y = np.array([[1.5, -2.0]]), np.array([[2.0, 0.25]])
    session.share({"x": x, "y": y})
    spent = session.run({"kind": "multiply"}, ["x", "y"], "z")
    assert np.allclose(session.reveal("z"), x * y, atol=1e-4)
    assert spent.bytes > 0 and spent.messages == 4 and spent.operations["pphlo.multiply"][0] == 1


def test_a_program_that_does_not_fit_is_refused(session: Session) -> None:
    session.share({"x": np.ones((2, 3)), "y": np.ones((4, 5))})
    with pytest.raises(PartiesFailed, match="start them again"):
        session.run({"kind": "matmul"}, ["x", "y"], "z")
    session.share({"x": np.ones(2)})
    session.run({"kind": "square"}, ["x"], "z")
    assert np.allclose(session.reveal("z"), 1, atol=1e-4)


def test_two_parties_run_a_gelu_decoder(session: Session) -> None:
    spec = secret.random_model().spec
    gelu = replace(spec.layers[0], mlp=replace(spec.layers[0].mlp, activation="gelu", gated=False))
    held = secret.random_model().weights.weights  # type: ignore[attr-defined]
    spec = replace(spec, layers=(gelu,))
    loaded = LoadedModel(spec, ResidentStore(held), None, "tiny", None, {}, 0)  # type: ignore[arg-type]
    tokens = [1, 2, 3, 4]
    shape = shape_of(spec, len(tokens))
    found = SecretDecoder(session, for_shares(loaded, shape), shape).logits(tokens, rows=2)
    plain = plain_logits(Prepared(loaded, shape), shape, EXACT, tokens)[-2:]
    assert found.shape == (2, spec.vocab) and np.abs(found - plain).max() < 1e-2


@pytest.mark.skipif(sys.platform != "linux", reason="whether a party waits is read from /proc")
def test_a_late_party_makes_no_round(session: Session) -> None:
    """Each party in turn is stopped while it should begin; what the run before acknowledged is still on its way."""
    pids, formula = session.open(Setup("semi2k", record=True, lockstep=True)), PROTOCOLS["semi2k"].compare(3)
    session.share({"x": np.array([1.0, -2.0, 3.0]), "y": np.array([2.0, -3.0, 3.0])})
    for late in (None, *pids):
        if late is not None:
            os.kill(late, signal.SIGSTOP)
            Timer(0.3, os.kill, (late, signal.SIGCONT)).start()
        spent = session.run({"kind": "compare"}, ["x", "y"], "z")
        assert (spent.rounds, spent.messages, spent.bytes) == (formula.rounds, formula.messages, formula.bytes)
    assert session.reveal("z").tolist() == [1, 0, 0]
