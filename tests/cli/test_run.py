"""`headrace run` on the real default model."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

QUESTION = "What is the capital of France?"


def test_json_has_the_answer_and_what_it_took(headrace, smollm2: Path) -> None:
    words = ("run", "smollm2-135m", QUESTION, "--max-tokens", "12", "--temperature", "0", "--seed", "0", "--json")
    result = headrace(*words)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    answer = json.loads(result.stdout)
    assert "Paris" in answer["text"]
    assert answer["finish_reason"] in ("stop", "length")
    usage, timing = answer["usage"], answer["timing"]
    assert usage["completion_tokens"] == len(answer["token_ids"]) <= 12
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 0 < timing["first_token_seconds"] <= timing["seconds"]
    assert answer["seed"] == 0
    assert json.loads(headrace(*words).stdout)["token_ids"] == answer["token_ids"]


def test_text_streams_and_ends_with_a_line_of_figures(headrace, smollm2: Path) -> None:
    result = headrace("run", QUESTION, "--max-tokens", "12")
    assert "Paris" in result.stdout
    closing = result.stderr.strip().splitlines()[-1]
    assert re.search(r"\d+ prompt \+ \d+ new tokens · first token [\d.]+ s · [\d.]+ tokens/s", closing)
    assert re.search(r"\d+ of \d+ pages · memory [\d,]+ MiB.* · (native|reference)", closing)


def test_raw_completes_the_text_itself(headrace, smollm2: Path) -> None:
    words = ("run", str(smollm2), "The capital of France is", "--max-tokens", "4", "--json")
    raw = json.loads(headrace(*words, "--raw").stdout)
    chat = json.loads(headrace(*words).stdout)
    assert raw["text"].startswith(" Paris")
    assert raw["usage"]["prompt_tokens"] < chat["usage"]["prompt_tokens"]


def test_a_seed_repeats_a_sampled_answer_and_another_differs(headrace, smollm2: Path) -> None:
    def draw(*words: str) -> dict:
        settings = ("--temperature", "1.5", "--max-tokens", "16", "--json")
        return json.loads(headrace("run", "Tell me a story.", *settings, *words).stdout)

    free = draw()
    assert draw("--seed", str(free["seed"]))["token_ids"] == free["token_ids"]
    assert draw("--seed", str(free["seed"] + 1))["token_ids"] != free["token_ids"]


def test_the_closing_line_has_the_seed_of_an_answer_that_was_drawn(headrace, smollm2: Path) -> None:
    drawn = headrace("run", "Tell me a story.", "--temperature", "1.5", "--max-tokens", "8")
    (seed,) = re.findall(r" · seed (\d+) · ", drawn.stderr)
    words = ("--temperature", "1.5", "--max-tokens", "8", "--seed", seed)
    assert headrace("run", "Tell me a story.", *words).stdout == drawn.stdout
    assert "seed" not in headrace("run", "Tell me a story.", "--max-tokens", "8").stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--context", "900000"), "--context 900000 becomes 8192 tokens: smollm2-135m was made for 8192."),
        (("--context", "4000", "--state-memory", "3"), "--state-memory holds no more."),
        (("--context", "4000"), ""),
    ],
)
def test_a_context_that_is_cut_is_said_to_be(headrace, smollm2: Path, words: tuple[str, ...], said: str) -> None:
    result = headrace("run", QUESTION, "--max-tokens", "1", *words)
    assert result.exit_code == 0, result.output
    assert said in result.stderr and result.stderr.count("\n") == 1 + bool(said)


def test_stop_text_and_stdin(headrace, smollm2: Path) -> None:
    result = headrace("run", "-", "--stop", "Paris", "--max-tokens", "24", "--json", stdin=QUESTION)
    answer = json.loads(result.stdout)
    assert answer["finish_reason"] == "stop"
    assert "Paris" not in answer["text"]


def interrupted() -> tuple[int, str, list[str]]:
    """Ctrl-C after the first character of an answer: exit code, stdout, lines of stderr."""
    words = [sys.executable, "-m", "headrace.cli", "run", "Count to one thousand.", "--max-tokens", "4000"]

    def default_signals() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=default_signals
    ) as process:
        assert process.stdout is not None
        begun = process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        rest, complaints = process.communicate(timeout=60)
    return process.returncode, begun + rest, complaints.splitlines()


def test_interrupt_ends_the_answer_cleanly(smollm2: Path) -> None:
    code, text, said = interrupted()
    assert code == 130, said
    assert len(text) > 1 and text.endswith("\n")
    assert said[-1].startswith("cancelled · ") and "Traceback" not in "".join(said)


def test_interrupt_keeps_the_json_of_what_there_is(smollm2: Path) -> None:
    """The process interrupts itself once the fifth token has come."""
    code = """
import os, signal, sys
from headrace.cli import run
signal.signal(signal.SIGINT, signal.default_int_handler)
count = 0
def show(text):
    global count
    count += 1
    if count == 5:
        os.kill(os.getpid(), signal.SIGINT)
run.silent = show
from headrace.cli.main import app
app(["run", "Count to one thousand.", "--max-tokens", "4000", "--json"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "")
    answer = json.loads(done.stdout)
    assert answer["finish_reason"] == "cancelled"
    assert len(answer["token_ids"]) >= 5 and answer["text"]
    assert answer["usage"]["completion_tokens"] == len(answer["token_ids"])


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--max-tokens", "3"), "cut at 3 tokens (--max-tokens) · "),
        (("--context", "50"), "cut: the context of 50 tokens is full (--context) · "),
        (("--state-memory", "3"), "tokens is full (--state-memory) · "),
        (("--stop", "Paris"), "ended before 'Paris' (--stop) · "),
    ],
)
def test_the_closing_line_says_why_an_answer_was_cut(headrace, smollm2: Path, words: tuple[str, ...], why: str) -> None:
    result = headrace("run", "Tell me at length about Paris.", *words)
    assert result.exit_code == 0, result.output
    assert why in result.stderr.splitlines()[-1]


def test_a_pulled_model_or_a_file_alone_is_no_prompt(headrace, smollm2: Path) -> None:
    result = headrace("run", str(smollm2))
    assert result.exit_code == 2
    assert "is a model; add a prompt" in result.stderr


def test_models_and_pull_name_the_file(headrace, smollm2: Path) -> None:
    rows = {row["name"]: row for row in json.loads(headrace("models", "--json").stdout)}
    row = rows["smollm2-135m"]
    assert (row["state"], row["licence"], row["path"]) == ("here", "Apache-2.0", str(smollm2))
    assert row["bytes"] == smollm2.stat().st_size
    assert rows.keys() >= {"smollm2-135m", "minilm-l6"}
    table = headrace("models").stdout
    assert all(name in table for name in rows)
    pulled = json.loads(headrace("pull", "smollm2-135m", "--json").stdout)
    assert pulled["path"] == headrace("pull", "smollm2-135m").stdout.strip() == str(smollm2)
