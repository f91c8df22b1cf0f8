"""`headrace probe`: attempts in, a scorer out, without the questions of an evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headrace.adapt.folder import first_weights, settings, spec_of, write_folder
from headrace.adapt.recipe import Full, Source
from headrace.reason.tasks.fixtures import lessons

TUNE = "arith:sums(steps=3, split='tune')"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the fixtures' vocabulary with random weights."""
    pytest.importorskip("torch", reason="training needs torch")
    _, vocabulary = lessons(Source("arith"))
    config = settings(Full(layers=2, hidden=64, heads=2, kv_heads=2, width=64, context=256), vocabulary)
    weights = first_weights(spec_of(config), seed=1).weights
    folder = tmp_path_factory.mktemp("random")
    write_folder(folder, config, vocabulary, {name: tensor.numpy() for name, tensor in weights.items()})
    return folder


def test_a_probe_by_the_command_line(headrace, small: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    words = ("eval", str(small), "--samples", "2", "--strategy", "single", "--max-tokens", "12", "--threads", "1")
    train, test = ("--task", TUNE, "--questions", "24"), ("--task", "arith:sums(steps=3)", "--questions", "2")
    assert headrace(*words, *train, "--store", "train.jsonl").exit_code == 0
    assert headrace(*words, *train[:2], "--questions", "3", "--store", "same.jsonl").exit_code == 0
    path = Path("train.jsonl")
    head, *lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    told = [head, *(line | {"kind": "right" if line["text"] < "5" else "wrong"} for line in lines)]
    path.write_text("".join(json.dumps(line) + "\n" for line in told), encoding="utf-8")
    before = path.read_bytes()
    made = headrace("probe", "mine", str(small), "--store", "train.jsonl", "--apart", "same.jsonl", "--threads", "1")
    assert made.exit_code == 0, made.output
    assert "3 questions of train.jsonl are evaluated on and left out" in made.stderr
    assert "42 attempts of questions it had not seen" in made.stderr and path.read_bytes() == before
    used = headrace(*words, *test, "--scorer", "probe(mine)", "--strategy", "best_of_n(n=2)", "--store", "s.jsonl")
    assert used.exit_code == 0, used.output
    assert sum('"scorer": "probe(' in line for line in Path("s.jsonl").read_text().splitlines()) == 4
    few = headrace("probe", "few", str(small), "--store", "same.jsonl", "--threads", "1")
    assert few.exit_code == 2 and "attempts at 5 questions, better at a hundred, and here are some at 3" in few.stderr
    again = headrace("probe", "mine", str(small), "--store", "train.jsonl")
    assert again.exit_code == 2 and "is there already" in again.stderr
    foreign = Path("foreign.jsonl")
    head = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    foreign.write_text(json.dumps(head).replace(f'"{small.name}"', '"another"') + "\n", encoding="utf-8")
    other = headrace("probe", "other", str(small), "--store", "foreign.jsonl", "--threads", "1")
    assert other.exit_code == 2 and "attempts of another" in other.stderr, other.output
    assert "name that model behind the probe's name" in other.stderr
