"""`headrace mpc run`: refusals before anything is installed, and an answer on shares where SPU's environment is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="the twin is made by transformers")

from cli.conftest import Headrace
from headrace.model.loading import load_model
from headrace.privacy.mpc import environment
from headrace.privacy.mpc.approximations import exact
from headrace.privacy.mpc.weights import Prepared, plain_logits, shape_of
from headrace.spec.ledger import Ledger
from server.twin import write_twin


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_twin(tmp_path_factory.mktemp("twin"))


def test_a_model_that_does_not_fit_is_refused_before_an_installation(
    headrace: Headrace, twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "make_worker", lambda report: pytest.fail("installs"))
    config = json.loads((twin / "config.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    for file in twin.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    scaled = config.get("rope_parameters", {}) | {"rope_type": "linear", "factor": 2.0}
    (other / "config.json").write_text(json.dumps(config | {"rope_scaling": scaled, "rope_parameters": scaled}))
    refused = headrace("mpc", "run", str(other), "hello")
    assert refused.exit_code == 2 and "llama-shaped" in refused.stderr


@pytest.mark.skipif(environment.worker_python() is None, reason="the environment of SPU is not here")
def test_a_token_on_shares_is_the_plain_one(headrace: Headrace, twin: Path) -> None:
    done = headrace("mpc", "run", str(twin), "hello", "--protocol", "semi2k", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    (token,) = told["tokens"]
    loaded = load_model(twin, Ledger())
    assert loaded.tokenizer is not None
    ids = loaded.tokenizer.encode("hello")
    shape = shape_of(loaded.spec, len(ids))
    plain = plain_logits(Prepared(loaded, shape), shape, exact(), ids)[-1]
    assert token["token"] == loaded.tokenizer.decode([int(plain.argmax())])
    assert told["protocol"] == "semi2k" and token["bytes"] > 0 and token["rounds"] > 0
