"""`headrace split`: a server process of its own with the middle blocks, and an answer that is the plain model's."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

pytest.importorskip("torch", reason="the split runs on the reference backend")

from headrace.cli.main import app
from headrace.engine.llm import LLM
from headrace.spec.options import EngineOptions
from headrace.spec.sampling import Sampling, Stop
from server.twin import write_twin
from serving import running_server

PROMPT = "What is a weir?"


def split(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["split", "run", *words])
    assert result.exit_code == code, result.output
    return result


def test_a_server_process_without_embedding_and_head_answers(tmp_path: Path) -> None:
    twin = str(write_twin(tmp_path))
    options = EngineOptions(backend="reference", threads=1, state_memory=8)
    with LLM(twin, options) as plain:
        greedy = plain.generate(PROMPT, Sampling(temperature=0.0), Stop(tokens=12)).pop()
        drawn = plain.generate(PROMPT, Sampling(temperature=1.0), Stop(tokens=12), seed=5).pop()
    serve = [sys.executable, "-m", "headrace.cli", "split", "serve", twin, "--k", "1", "--port", "0"]
    with running_server([*serve, "--threads", "1", "--context", "128"]) as url:
        how = (twin, PROMPT, "--url", url, "--raw", "--threads", "1", "-n", "12", "--json")
        told = json.loads(split(*how, "--k", "1").stdout)
        assert told["token_ids"] == greedy.steps[0].token_ids and told["text"] == greedy.text
        assert told["profile"] == "split:1" and told["carried"]["sent"] == 4 * 32 * told["carried"]["tokens"]
        told = json.loads(split(*how, "--k", "1", "--temperature", "1", "--seed", "5").stdout)
        assert told["token_ids"] == drawn.steps[0].token_ids
        assert json.loads(split(*how, "--k", "1", "--noise", "0.5").stdout)["profile"] == "split:1,noise=0.5"
        assert "same model and k" in split(*how, "--k", "0", code=2).output
    assert "split serve" in split(*how, "--k", "1", code=1).output
