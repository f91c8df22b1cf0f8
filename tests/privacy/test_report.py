"""The report says what was measured here, what a file says, and what nobody measured; its threshold holds both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from privacy.attacks.folder import Deployment, deploy, write_model

pytest.importorskip("headrace.backends.native._kernels", reason="the native kernels were not built")

from headrace.privacy.attacks.artefact import Opened
from headrace.privacy.attacks.recovery import RecoveryOverThreshold, Share
from headrace.privacy.figure import LETTER, figure
from headrace.privacy.measure import Case, measured, slowdown, veiled_for
from headrace.privacy.report import OPEN, Line, Report, stored_lines
from headrace.spec.errors import HeadraceError, InvalidRequest
from headrace.spec.options import EngineOptions

OPTIONS = EngineOptions(threads=1, state_memory=8)
SHARE = {"value": 0.4, "low": 0.3, "high": 0.5, "chance": 0.003}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return deploy(tmp_path_factory.mktemp("case"))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Of split a result file, of mpc none."""
    lines = [{"profile": "split:2", "slowdown": 3.5, "recovery": SHARE, "attack": "inversion"}]
    lines.append({"profile": "split:0", "slowdown": None, "recovery": None, "attack": ""})
    stored = {"kind": "split", "model": "tiny", "date": "2026-11-23", "privacy_report": lines}
    (tmp_path / "privacy_split.json").write_text(json.dumps(stored), encoding="utf-8")
    (tmp_path / "other.json").write_text("{}", encoding="utf-8")
    return tmp_path


def test_public_weights_are_over_and_figures_are_of_this_artefact(case: Deployment, results: Path) -> None:
    with veiled_for(case.deployed, case.public, case.key) as held:
        report = measured(held, runs=0, results=results, options=OPTIONS)
    plain, veil, first, second, mpc = report.lines
    assert plain.slowdown == 1 and plain.recovery is not None and plain.recovery.value == 1
    assert veil.recovery is not None and veil.recovery.value > 0.99 and veil.attack == "align"
    assert veil.slowdown is None and "measured here" in veil.source
    assert (first.profile, second.profile) == ("split:0", "split:2") and "2026-11-23" in second.source
    assert mpc.recovery is None and mpc.source == OPEN
    with pytest.raises(RecoveryOverThreshold):
        report.check(0.5)
    text = report.text()
    assert "align" in text and "server – ids under one fixed permutation" in text and OPEN in text
    stored = json.loads(json.dumps(report.to_json()))
    assert stored["lines"][1]["sees"]["server"] and stored["attacks"][0]["scored_by"] == "key"


def test_a_foreign_model_is_under(case: Deployment, tmp_path: Path) -> None:
    foreign = Opened(write_model(tmp_path / "foreign", seed=77))
    with veiled_for(case.deployed, foreign, case.key) as held:
        measured(held, runs=0, results=tmp_path).check(0.1)
    with veiled_for(case.deployed, foreign, None) as held:
        report = measured(held, runs=0, results=tmp_path)
    assert report.lines[1].attack == "align, by its own confidence"
    with pytest.raises(InvalidRequest, match="give --key, or leave --threshold out"):
        report.check(0.1)


def test_without_public_weights_the_model_is_the_oracle(case: Deployment, tmp_path: Path) -> None:
    """Of an attacker whose text is another language's."""
    known = np.random.default_rng(0).integers(case.deployed.spec.vocab, size=4000)
    with veiled_for(case.deployed, None, case.key) as held:
        report = measured(held, known, tokens=1500, results=tmp_path, options=OPTIONS)
    assert [each.attack for each in report.recoveries] == ["oracle"] and report.lines[1].slowdown is None
    report.check(0.2)


def test_what_nothing_attacked_passes_no_threshold(case: Deployment, tmp_path: Path) -> None:
    report = measured(Case(case.deployed, None, None), results=tmp_path)
    assert report.lines[1].recovery is None
    with pytest.raises(InvalidRequest, match="--public or --known"):
        report.check(1.0)


def test_a_plain_model_is_veiled_for_the_report(case: Deployment, tmp_path: Path) -> None:
    with veiled_for(case.public, None, None) as held:
        report, folder = measured(held, runs=0, results=tmp_path), held.deployed.path
        assert (folder / "veil.json").is_file()
    assert not folder.exists() and report.lines[1].recovery is not None and report.lines[1].recovery.value > 0.99
    with pytest.raises(InvalidRequest, match="leave --public out"), veiled_for(case.public, case.public, None):
        pass


def test_both_models_run_at_one_weight_type(case: Deployment, tmp_path: Path) -> None:
    assert 0 < slowdown(case.public, case.deployed, 2, OPTIONS) < 100
    halved = deploy(tmp_path, "bf16")
    assert 0 < slowdown(halved.public, halved.deployed, 1, OPTIONS) < 100


def test_a_context_too_short_for_the_slowdown_is_named(tmp_path: Path) -> None:
    short = write_model(tmp_path / "short")
    settings = json.loads((short / "config.json").read_text(encoding="utf-8")) | {"max_position_embeddings": 16}
    (short / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    with veiled_for(Opened(short), None, None) as held:
        with pytest.raises(InvalidRequest, match=r"context of 16 tokens.*give --runs 0\.$"):
            measured(held, results=tmp_path, options=OPTIONS)
        assert measured(held, runs=0, results=tmp_path).lines[1].recovery is not None


def test_an_encoder_is_aligned_and_is_no_oracle(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="twins are made by transformers")
    from model.twins import TWINS, make_twin

    make_twin(next(twin for twin in TWINS if twin.name == "bert"), tmp_path / "bert")
    with veiled_for(Opened(tmp_path / "bert"), None, None) as held:
        with pytest.raises(InvalidRequest, match=r"bert is an encoder.*leave --known out\.$"):
            measured(held, np.arange(20), runs=0, results=tmp_path, options=OPTIONS)
        veil = measured(held, runs=1, results=tmp_path, options=OPTIONS).lines[1]
    assert veil.recovery is not None and veil.recovery.value > 0.9 and veil.slowdown is not None


def test_the_figure_shows_what_was_measured(case: Deployment, results: Path) -> None:
    with veiled_for(case.deployed, case.public, case.key) as held:
        report = measured(held, runs=1, results=results, options=OPTIONS)
    drawn = figure(report)
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert drawn.count("<circle") == 3 and "split:2 (inversion)" in drawn and "not measured: split:0; mpc" in drawn


def test_a_damaged_result_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"privacy_report": [{"profile": "mpc"}], "date": "x"}', encoding="utf-8")
    with pytest.raises(HeadraceError, match=r"bad\.json is damaged"):
        stored_lines(tmp_path)
    assert [line.profile for line in stored_lines(None)] == ["split", "mpc"]


@pytest.mark.parametrize(
    "wrong", [{"slowdown": 0}, {"slowdown": float("nan")}, {"slowdown": "3"}, {"recovery": SHARE | {"high": 1.5}}]
)
def test_figures_that_none_can_be_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    line = {"profile": "split:2", "slowdown": 3.5, "recovery": SHARE, "attack": "inversion"} | wrong
    stored = {"date": "2026-11-23", "privacy_report": [line]}
    (tmp_path / "bad.json").write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(HeadraceError, match=r"bad\.json is damaged"):
        stored_lines(tmp_path)


def test_names_are_escaped_in_the_figure() -> None:
    share = Share(0.5, 0.4, 0.6, 0.1)
    drawn = figure(Report("<b>&", (Line("split:<i>", 2.0, share, "a & b", "x"), Line("mpc", None, None, "", OPEN))))
    title, text = ElementTree.fromstring(drawn)[0].text, "".join(ElementTree.fromstring(drawn).itertext())
    assert title == "Slowdown against recovery: <b>&" and "split:<i> (a & b)" in text


def test_every_word_of_the_figure_stands_inside_of_it_and_apart() -> None:
    """Marks at the right edge and on top of each other, and more profiles without figures than a line holds."""
    splits = [Line(f"split:{k},noise=1", 1.1 + k / 9, Share(each, each, each, 0), "inversion", "x")
              for k, each in enumerate((0.0, 0.0, 0.0, 0.99, 1.0, 1.0))]  # fmt: skip
    mpc = [Line(name, 990.0, Share(0.0, 0.0, 0.0, 0.0), "none known", "x") for name in ("mpc:aby3", "mpc:semi2k")]
    silent = [Line(f"split:{k},noise=10", None, None, "", OPEN) for k in range(12)]
    drawn = ElementTree.fromstring(figure(Report("tiny", (*splits, *mpc, *silent))))
    width, height = map(float, drawn.attrib["viewBox"].split()[2:])
    boxes: list[tuple[float, float, float]] = []
    for text in (each for each in drawn if each.tag.endswith("text")):
        x, y, wide = float(text.attrib["x"]), float(text.attrib["y"]), LETTER * len(text.text or "")
        left = x - {"start": 0.0, "middle": 0.5, "end": 1.0}[text.attrib["text-anchor"]] * wide
        assert left >= 0 and left + wide <= width and 0 < y < height, text.text
        assert not [at for begin, end, at in boxes if left < end and begin < left + wide and abs(y - at) < 10], (
            text.text
        )
        boxes.append((left, left + wide, y))
