"""`headrace privacy` on a folder that `headrace veil` made: figures, JSON, and an exit code by the threshold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

pytest.importorskip("cryptography", reason="headrace[privacy] is not installed")
pytest.importorskip("pyrage", reason="headrace[privacy] is not installed")
pytest.importorskip("scipy.optimize", reason="headrace[privacy] is not installed")
pytest.importorskip("headrace.backends.native._kernels", reason="the native kernels were not built")

import pyrage

from headrace.cli.main import app
from privacy.attacks.folder import VOCAB, write_model
from server.twin import write_tokenizer


@dataclass(frozen=True)
class Made:
    plain: Path
    veiled: Path
    foreign: Path
    key: tuple[str, ...]


def privacy(*words: str | Path | float, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["privacy", *map(str, words)])
    assert result.exit_code == code, result.output
    return result


def figures(*words: str | Path | float) -> dict:
    return json.loads(privacy(*words, "--json").stdout)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    identity, plain = pyrage.x25519.Identity.generate(), write_model(folder / "plain")
    write_tokenizer(plain)
    (folder / "identity").write_text(f"{identity}\n", encoding="utf-8")
    key = ("--key", str(folder / "key"), "--identity", str(folder / "identity"))
    for words in (
        ["keygen", plain, "--out", folder / "key", "--recipient", identity.to_public()],
        ["export", plain, *key, "--out", folder / "veiled"],
    ):
        done = CliRunner().invoke(app, ["veil", *map(str, words)])
        assert done.exit_code == 0, done.output
    return Made(plain, folder / "veiled", write_model(folder / "foreign", seed=77), key)


def test_align_is_scored_with_and_without_the_key(made: Made) -> None:
    scored = figures("attack", "align", made.plain, made.veiled, *made.key)
    assert scored["scored_by"] == "key" and scored["types"]["value"] > 0.99 and scored["cost"]["seconds"] > 0
    shown = privacy("attack", "align", made.plain, made.veiled).output
    assert "own confidence" in shown and "chance" in shown and "processor time" in shown
    words = ("attack", "align", made.plain, made.veiled, "--threshold", 0.5)
    assert "over the threshold" in privacy(*words, *made.key, code=2).output
    privacy("attack", "align", made.foreign, made.veiled, "--threshold", 0.5, *made.key)


def test_no_threshold_is_held_against_an_attacks_own_confidence(made: Made, tmp_path: Path) -> None:
    """The foreign model would pass it, and say nothing of what somebody else recovers."""
    ids = tmp_path / "wire.npy"
    np.save(ids, np.random.default_rng(0).integers(VOCAB, size=600))
    threshold = ("--threshold", 0.5)
    for words in (
        ("attack", "align", made.foreign, made.veiled),
        ("attack", "bigram", made.plain, ids, "--known", ids),
        ("attack", "known-pairs", made.plain, ids, "--veiled", made.veiled, "--told", ids),
        ("attack", "oracle", made.plain, made.veiled, "--known", ids),
        ("attack", "hidden", made.plain, made.veiled),
        ("attack", "kv", made.plain, made.veiled),
        ("report", made.veiled, "--public", made.foreign),
    ):
        refused = privacy(*words, *threshold, code=2)
        assert "give --key, or leave --threshold out" in " ".join(refused.output.split())
        assert "confidence" not in refused.stdout


def test_what_a_cache_and_states_hold_is_read(made: Made) -> None:
    kv = figures("attack", "kv", made.plain, made.veiled, *made.key)
    assert kv["mass"]["value"] > 0.9 and kv["cost"]["tokens"] == 64
    words = ("attack", "hidden", made.plain, made.veiled, "--tokens", 6, "--threads", 1)
    hidden = figures(*words, "--told", 2, *made.key)
    assert hidden["mass"]["value"] >= 0.75 and hidden["details"]["layer"] == 1
    assert "--key" in privacy(*words, "--told", 2, code=2).output


def test_traffic_is_text_or_ids(made: Made, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    text, ids, own = tmp_path / "sent.txt", tmp_path / "wire.ids", tmp_path / "own.npy"
    letters = np.array(list("the weir and the wheel "))
    text.write_text("".join(rng.choice(letters, 1500)), encoding="utf-8")
    ids.write_text(" ".join(map(str, rng.integers(VOCAB, size=1500))), encoding="utf-8")
    np.save(own, rng.integers(VOCAB, size=1500))
    veiled = figures("attack", "bigram", made.plain, text, "--known", text, *made.key)
    assert veiled["scored_by"] == "key" and veiled["cost"]["tokens"] == 1500
    assert "give --key to veil it" in privacy("attack", "bigram", made.plain, text, "--known", text, code=2).output
    assert figures("attack", "bigram", made.plain, ids, "--known", own)["scored_by"] == "confidence"
    ids.write_text("no numbers", encoding="utf-8")
    assert "whole numbers" in privacy("attack", "bigram", made.plain, ids, "--known", own, code=2).output
    for wrong in (-1, VOCAB):
        ids.write_text(f"0 1 {wrong}", encoding="utf-8")
        words = ("attack", "known-pairs", made.plain, ids, "--veiled", made.veiled, *made.key)
        assert f"not below {VOCAB}" in " ".join(privacy(*words, code=2).output.split())


def test_known_pairs_go_on_from_texts_or_weights(made: Made, tmp_path: Path) -> None:
    ids = tmp_path / "wire.npy"
    np.save(ids, np.random.default_rng(0).integers(VOCAB, size=600))
    words = ("attack", "known-pairs", made.plain, ids)
    weights = figures(*words, "--veiled", made.veiled, "--count", 120, *made.key)
    assert weights["types"]["value"] > 0.95 and weights["details"]["told"] <= 120
    assert figures(*words, "--known", ids, "--told", ids)["scored_by"] == "confidence"
    assert "either --known or --veiled" in privacy(*words, code=2).output
    text = ("attack", "bigram", made.veiled, ids, "--known", made.veiled / "config.json")
    assert "give ids (.npy, .ids)" in " ".join(privacy(*text, code=2).output.split())
    assert "give --told, or --key" in privacy(*words, "--known", ids, code=2).output


def test_the_model_writes_the_traffic(made: Made, tmp_path: Path) -> None:
    own = tmp_path / "own.npy"
    np.save(own, np.random.default_rng(0).integers(VOCAB, size=900))
    words = ("attack", "oracle", made.plain, made.veiled, "--known", own, "--tokens", 600, "--threads", 1)
    found = figures(*words, *made.key)
    assert found["details"]["written_tokens"] == 600 and found["cost"]["tokens"] == 0


def test_a_known_text_that_is_too_short_is_refused_before_anything_is_run(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("nothing is to be loaded or veiled")

    monkeypatch.setattr("headrace.cli.generation.loaded_engine", never)
    monkeypatch.setattr("headrace.privacy.measure.veiled_for", never)
    own = tmp_path / "own.ids"
    own.write_text("7", encoding="utf-8")
    for words in (("attack", "oracle", made.plain, made.veiled), ("report", made.plain)):
        assert "give a longer text" in " ".join(privacy(*words, "--known", own, code=2).output.split())


def test_vectors_are_inverted(made: Made, tmp_path: Path) -> None:
    rng, texts = np.random.default_rng(0), tmp_path / "lines"
    letters = np.array(list("abcdefgh"))
    texts.write_text("\n".join("".join(rng.choice(letters, 4)) for _ in range(40)), encoding="utf-8")
    found = figures("attack", "inversion", made.plain, texts, "--known", texts, "--threads", 1)
    assert found["attack"] == "inversion" and found["types"]["low"] > found["types"]["chance"]


def test_the_report_fails_over_the_threshold_and_passes_under(made: Made, tmp_path: Path) -> None:
    svg, none = tmp_path / "report.svg", tmp_path / "none"
    none.mkdir()
    words = ("report", made.veiled, "--results", none, "--threads", 1)
    found = figures(*words, "--public", made.plain, "--runs", 1, "--svg", svg, *made.key)
    plain, veil, split, mpc = found["lines"]
    assert (plain["recovery"]["value"], split["source"], mpc["source"]) == (1, "not measured", "not measured")
    assert veil["recovery"]["value"] > 0.99 and veil["slowdown"] > 0 and svg.read_text("utf-8").count("<circle") == 2
    fast = ("--runs", 0, "--threshold", 0.5)
    over = privacy(*words, "--public", made.plain, *fast, *made.key, code=2)
    assert "best attack recovers" in over.output and "over the threshold" in over.output
    privacy(*words, "--public", made.foreign, *fast, *made.key)
    assert "--public or --known" in privacy(*words, *fast, *made.key, code=2).output


def test_a_folder_that_is_none_is_refused_before_anything_is_measured(made: Made, tmp_path: Path) -> None:
    words, none = ("report", made.plain, "--runs", 0), tmp_path / "none"
    for more, said in (
        (("--results", none), "leave --results out"),
        (("--svg", none / "a.svg"), "--svg somewhere else"),
    ):
        refused = privacy(*words, *more, code=2)
        assert said in " ".join(refused.output.split()) and not refused.stdout


def test_a_plain_model_is_over_by_its_own_weights(made: Made, tmp_path: Path) -> None:
    words = ("report", made.plain, "--results", tmp_path, "--runs", 0)
    assert "over the threshold" in privacy(*words, "--threshold", 0.5, code=2).output
