"""`headrace audit`: canaries written, an adapter that learned them by heart failed, the model without it passed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

pytest.importorskip("torch", reason="training needs torch")

from headrace.cli.main import app
from headrace.privacy.audit.small import small_base, small_trial
from headrace.privacy.audit.trial import Bench, Cell, Trial
from model.twins import TWINS, make_twin

SMALL = ("--state-memory", "8", "--threads", "1")


def audit(*words: str | Path, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["audit", *map(str, words)])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    return small_trial(small_base(tmp_path_factory.mktemp("small") / "base", steps=80))


def test_an_adapter_that_learned_by_heart_fails(trial: Trial, tmp_path: Path) -> None:
    audit("canaries", tmp_path, "--model", trial.base, "--count", "40", "--held-out", "120", "--seed", "3")
    members, held_out = tmp_path / "members.txt", tmp_path / "held-out.txt"
    texts = members.read_text("utf-8").splitlines()
    with Bench.load(trial, tmp_path) as bench:
        adapter = bench.train(Cell(3, "trained"), texts)
    words = ("run", trial.base, "--members", members, "--held-out", held_out, *SMALL)
    adapted = (*words, "--adapter", f"mine={adapter}", "--candidates", "2", "--ending", "5")
    found = json.loads(audit(*adapted, "--json", code=1).stdout)
    assert found["audited"] == "mine" and not found["passed"] and found["extracted"]["value"] > 0.1
    assert [one["attack"] for one in found["told"]][-1] == "supervised"
    shown = audit(*adapted, "--examined", "0", "--threshold", "1")
    assert "loss-ratio" in shown.stdout and "min-k++" not in shown.stdout and "mine passes" in shown.stderr
    plain = json.loads(audit(*words, "--examined", "0", "--candidates", "0", "--threshold", "0.2", "--json").stdout)
    assert plain["passed"] and plain["extracted"] is None and plain["gain"] is None


def test_canaries_and_sets_that_are_there_are_not_mixed(trial: Trial, tmp_path: Path) -> None:
    folder = tmp_path / "canaries"
    how = ("--model", trial.base, "--count", "10", "--held-out", "120")
    assert "audit with --ending 5" in audit("canaries", folder, *how).output
    members, held_out = folder / "members.txt", folder / "held-out.txt"
    assert "has canaries already" in audit("canaries", folder, *how, code=2).output
    assert "is a file" in audit("canaries", members, *how, code=2).output
    with held_out.open("a", encoding="utf-8") as file:
        file.write(members.read_text("utf-8").splitlines()[0] + "\n")
    both = ("run", trial.base, *SMALL, "--members", members, "--held-out", held_out, "--examined", "0")
    assert "1 documents are members and held-out at once" in audit(*both, code=2).output
    assert "MODEL and --base are the same" in audit(*both, "--base", trial.base, code=2).output


def test_canaries_are_of_models_that_write(tmp_path: Path) -> None:
    make_twin(next(twin for twin in TWINS if twin.name == "bert"), tmp_path / "encoder")
    refused = audit("canaries", tmp_path, "--model", tmp_path / "encoder", code=2).output
    assert "does not generate text" in refused and not (tmp_path / "members.txt").exists()
    assert "No model is called 'nope'" in audit("canaries", tmp_path, "--model", "nope", code=2).output
    lines = tmp_path / "texts.txt"
    lines.write_text("".join(f"Text number {number}.\n" for number in range(200)), encoding="utf-8")
    (tmp_path / "members").write_text("Another text.\n", encoding="utf-8")
    sets = ("--members", tmp_path / "members", "--held-out", lines, "--examined", "0")
    assert "does not generate text; audit" in audit("run", tmp_path / "encoder", *SMALL, *sets, code=2).output


def test_documents_and_flags_that_do_not_fit_are_refused(trial: Trial, tmp_path: Path) -> None:
    file, lines = tmp_path / "texts.jsonl", tmp_path / "texts.txt"
    file.write_text('{"text": "Ada Abel of York"}\n{"words": 1}\n', encoding="utf-8")
    lines.write_text("Ada Abel of York.\n" * 5, encoding="utf-8")
    words = ("run", trial.base, *SMALL, "--members")
    assert "no JSONL with `text`" in audit(*words, file, "--held-out", lines, code=2).output
    both = (*words, lines, "--held-out", lines)
    assert "5 held-out documents have no hundredth" in audit(*both, "--examined", "0", code=2).output
    (tmp_path / "none.txt").write_text("\n", encoding="utf-8")
    assert "There are no members" in audit(*words, tmp_path / "none.txt", "--held-out", lines, code=2).output
    assert "--examined is 5" in audit(*both, "--examined", "5", code=2).output
    assert "leave --base out" in audit(*both, "--base", "x", "--adapter", "a=b", code=2).output
