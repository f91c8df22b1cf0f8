"""`headrace eval` on the real model: stored samples, resumed runs, figures in three forms."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from headrace.reason.tasks.gsm8k import gsm8k_file
from headrace.spec.errors import ModelFileError

SMALL = ("--task", "gsm8k", "--questions", "2", "--max-tokens", "6", "--threads", "1", "--state-memory", "128")
PLANS = (
    "--strategy",
    "single",
    "--strategy",
    "self_consistency(n=2)",
    "--strategy",
    "sequential_revision(rounds=1, chains=1)",
)


@pytest.fixture(scope="module", autouse=True)
def questions() -> None:
    try:
        gsm8k_file()
    except ModelFileError as error:
        pytest.skip(f"the questions cannot be had here: {error}")


def test_figures_come_from_the_store_and_a_second_run_adds_none(headrace, smollm2: Path, tmp_path: Path) -> None:
    words = ("eval", str(smollm2), *SMALL, *PLANS, "--budget", "20 tok", "--store", "s.jsonl")
    first = headrace(*words, "--json", "--output", "out")
    assert first.exit_code == 0, first.output
    found: dict[str, Any] = json.loads(first.stdout)
    lines = Path("s.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 2 * 2 + 2, "settings, a pool of two, one live strategy"
    assert [row["source"] for row in found["rows"]] == ["pool", "pool", "live"]
    assert all(row["decode_tokens"] <= 20 and row["budget"] == "20 tok" for row in found["rows"])
    assert found["settings"]["task"] == "gsm8k" and found["baseline"] == "the vote at the same tokens"
    assert json.loads(Path("out/eval.json").read_text(encoding="utf-8")) == found
    assert "eval.svg" in Path("out/eval.md").read_text(encoding="utf-8")
    assert Path("out/eval.svg").read_text(encoding="utf-8").startswith("<svg")

    again = headrace(*words)
    assert again.exit_code == 0 and "6 are there already" in again.stderr
    assert Path("s.jsonl").read_text(encoding="utf-8").splitlines() == lines
    assert "self_consistency(n=2) (pool)" in again.stdout and "pass@k" in again.stdout
    assert "Against the vote at the same tokens:" in again.stderr

    other = headrace(*words, "--temperature", "0.5")
    assert other.exit_code == 2 and "belongs to temperature 0.8" in other.stderr


def test_a_killed_evaluation_goes_on(headrace, smollm2: Path) -> None:
    words = ("eval", str(smollm2), *SMALL, "--strategy", "self_consistency(n=8)", "--concurrency", "1")
    store = Path("s.jsonl")
    process = subprocess.Popen(
        [sys.executable, "-m", "headrace.cli", *words, "--store", str(store)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    while process.poll() is None and (not store.exists() or store.read_bytes().count(b"\n") < 3):
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = store.read_bytes().rpartition(b"\n")[0].splitlines()
    assert len(kept) >= 3
    went_on, whole = (headrace(*words, "--json", "--store", name) for name in (str(store), "whole.jsonl"))
    assert went_on.exit_code == whole.exit_code == 0, went_on.output
    assert store.read_bytes().splitlines()[: len(kept)] == kept
    curves = [json.loads(result.stdout)["pool"]["curves"] for result in (went_on, whole)]
    assert curves[0] == curves[1]
    texts = [{(s["item"], s["draw"]): s["text"] for s in samples(path)} for path in (store, Path("whole.jsonl"))]
    assert texts[0] == texts[1] and len(texts[0]) == 2 * 8 == len(samples(store))


def samples(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[1:]]


REFUSED = {
    "There is no task 'gsm9'": ("--task", "gsm9"),
    "There is no strategy 'singel'": ("--strategy", "singel"),
    "needs a scorer; add --scorer judge": ("--strategy", "best_of_n(n=2)"),
    "needs --samples 8 or more": ("--strategy", "self_consistency(n=8)", "--samples", "4"),
    "There is no scorer 'jury'": ("--scorer", "jury"),
    "cannot be read at '5 cows'": ("--budget", "5 cows"),
    "is a file; give the path of a folder": ("--output", "taken"),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_evaluated_is_refused_before_a_model_is_loaded(headrace, words: str) -> None:
    Path("taken").write_text("")
    given = REFUSED[words]
    task = () if "--task" in given else ("--task", "gsm8k")
    result = headrace("eval", "no-such-model", *task, *given)
    assert result.exit_code == 2 and words in result.stderr, result.output
