"""`--adapter` and `--adapter-scale`: one answer uses one adapter, a server has several."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the tiny twin is written with transformers and torch")
pytest.importorskip("transformers", reason="the tiny twin is written with transformers and torch")

from server.twin import write_adapter_of, write_twin

SMALL = ("--state-memory", "8", "--threads", "1", "--json")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A model and an adapter of it."""
    model = write_twin(tmp_path_factory.mktemp("twin"))
    return str(model), str(write_adapter_of(model, tmp_path_factory.mktemp("adapter")))


def test_run_and_chat_answer_with_it(headrace: Any, files: tuple[str, str]) -> None:
    model, folder = files

    def run(*words: str) -> list[int]:
        result = headrace("run", model, "The river", "--max-tokens", "8", *SMALL, *words)
        assert result.exit_code == 0, result.stderr
        ids: list[int] = json.loads(result.stdout)["token_ids"]
        return ids

    base, adapted = run(), run("--adapter", f"one={folder}")
    half = run("--adapter", f"one={folder}", "--adapter-scale", "0.5")
    assert base != adapted != half != base
    assert run("--adapter", f"one={folder}", "--adapter-scale", "0") == base
    words = ("--max-tokens", "8", "--adapter", f"one={folder}", *SMALL)
    turn = json.loads(headrace("chat", model, *words, stdin="The river\n").stdout.splitlines()[0])
    assert turn["token_ids"] == adapted


def test_solve_uses_it_and_goes_on_with_the_same_alone(headrace: Any, files: tuple[str, str], tmp_path: Path) -> None:
    model, folder = files
    words = ("solve", model, "The river", "--strategy", "single", "--seed", "3", "--max-tokens", "8", *SMALL)
    adapter, trace = ("--adapter", f"one={folder}"), ("--trace", str(tmp_path / "trace.jsonl"))
    base, adapted = (json.loads(headrace(*words, *how).stdout)["text"] for how in ((), (*adapter, *trace)))
    assert base != adapted
    again = headrace(*words, *adapter, *trace, "--resume")
    assert json.loads(again.stdout)["text"] == adapted
    for how in ((), (*adapter, "--adapter-scale", "0.5")):
        refused = headrace(*words, *how, *trace, "--resume")
        assert refused.exit_code == 2 and "was written with adapter ['one', 1.0]" in refused.stderr


def test_bench_measures_with_them(headrace: Any, files: tuple[str, str]) -> None:
    model, folder = files
    words = ("--concurrency", "2", "--prompt-tokens", "8", "--new-tokens", "4", "--repeats", "1")
    result = headrace("bench", model, *words, "--adapter", f"one={folder}", *SMALL)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["options"]["adapter"] == [f"one={folder}"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--adapter", "one=a", "--adapter", "two=b"), "--adapter is given 2 times, but an answer uses one"),
        (("--adapter-scale", "0.5"), "--adapter-scale is for an adapter; add --adapter NAME=FOLDER."),
        (("--adapter", "one"), "--adapter is 'one'; give NAME=FOLDER."),
        (("--adapter", "one=/nowhere"), "/nowhere is no adapter's folder; give one with adapter_config.json in it."),
    ],
)
def test_what_is_refused(headrace: Any, files: tuple[str, str], words: tuple[str, ...], message: str) -> None:
    result = headrace("run", files[0], "The river", *SMALL, *words)
    assert result.exit_code == 2 and message in result.stderr
