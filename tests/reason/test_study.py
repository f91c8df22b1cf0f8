"""Studies ask what they say, at every width; the page is what their committed figures give."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from headrace.reason.evaluate import checked
from headrace.reason.evaluation.results_page import figure, page
from headrace.reason.evaluation.store import Store
from headrace.reason.evaluation.study import Block, Level, Study, carried_out, designs, how_of, read_studies, shortened
from headrace.reason.evaluation.table import holm_corrected
from headrace.reason.strategy import parse, strategies
from headrace.spec.errors import InvalidRequest
from reason.toy import TextScorer, toy_engine
from reason.toy_items import toy_items

ROOT = Path(__file__).resolve().parents[2]
STUDIES = read_studies(ROOT / "benchmarks" / "better_answers.toml")
RESULTS = sorted((ROOT / "benchmarks" / "results" / "better_answers").glob("*.json"))
SETTINGS = {"profile": "toy", "max_tokens": 24}
LEVELS = (Level("40 tok", 2), Level("90 tok", 4))
WIDE = ("single", "self_consistency(n={n})", "best_of_n(n={n})", "step_beam(width={half})")
TOY = Study(
    name="toy",
    section="Toys",
    model="toy",
    task="toy",
    questions=6,
    scorer="text",
    samples=4,
    blocks=(Block(WIDE, LEVELS), Block(("self_consistency(n=4)", "single"))),
)


def told(study: Study = TOY, store: Store | None = None) -> dict:
    with toy_engine() as engine, store or Store(None, SETTINGS) as kept:
        found = asyncio.run(carried_out(engine, study, toy_items(study.questions), TextScorer(), kept))
    where = {"name": "toy.jsonl", "sha256": "0" * 64}
    whole = {"study": study, "date": "2026-01-01", "commit": "c0ffee", "machine": "a toy", "store": where}
    return json.loads(msgspec.json.encode(whole | {"figures": found}))


def test_every_strategy_meets_every_level_at_its_width(tmp_path: Path) -> None:
    found = told()
    rows = {(row["called"], row["budget"]): row["strategy"] for row in found["figures"]["rows"]}
    assert rows["self_consistency(n={n})", "40 tok"] == "self_consistency(n=2)"
    assert rows["step_beam(width={half})", "90 tok"] == "step_beam(width=2)"
    assert len(rows) == 2 * 4 + 2
    assert {(one["budget"], one["baseline"]) for one in found["figures"]["comparisons"]} == {
        ("40 tok", "self_consistency(n=2)"),
        ("90 tok", "self_consistency(n=4)"),
        ("no bound", "self_consistency(n=4)"),
    }
    assert found["figures"]["pool"]["samples"] == 4
    with Store(tmp_path / "toy.jsonl", SETTINGS) as kept:
        first = told(store=kept)
    with Store(tmp_path / "toy.jsonl", SETTINGS) as kept:
        assert told(store=kept) == first, "the second run takes everything from the store"


def test_holm_corrects_over_the_whole_table() -> None:
    compared = told()["figures"]["comparisons"]
    assert [one["holm"] for one in compared] == holm_corrected([one["p"] for one in compared])
    assert len(compared) == 2 * 3 + 1


def test_the_page_says_every_verdict_class_and_difference() -> None:
    whole = told()
    text = page([whole])
    for one in whole["figures"]["comparisons"]:
        cell = f"{100 * one['difference']:+.1f} [{100 * one['interval'][0]:+.1f}, {100 * one['interval'][1]:+.1f}]"
        assert cell in text
    for words in ("- better: ", "- worse: ", "- no difference shown: ", "four times in five: ", "AUC ", "c0ffee"):
        assert words in text
    assert figure(whole).count("<polyline") == len({row["called"] for row in whole["figures"]["rows"]})
    better = json.loads(json.dumps(whole))
    better["figures"]["comparisons"][0] |= {"verdict": "better", "holm": 0.01}
    called = better["figures"]["comparisons"][0]["called"]
    assert f"- better: `{called}` at 40 tok (Holm)." in page([better])


def test_what_cannot_be_read_is_said_in_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    for text in ("", "[[study]]\nname = 'x'\n", "[[study]\n"):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(InvalidRequest, match="holds no studies"):
            read_studies(file)


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_a_study_can_be_carried_out(study: Study) -> None:
    """Its strategies are read, have the pool they need, and meet a baseline wherever they are compared."""
    scorer = TextScorer() if study.scorer else None
    asked = shortened(toy_items(2), study.max_tokens)
    for _, texts, design in designs(study, asked):
        needs = frozenset().union(*(parse(text).needs for text in texts))
        if needs <= {"scorer"}:
            checked(design, how_of(study, scorer))
        assert study.kind == "baseline" or any(text.startswith("self_consistency") for text in texts)


def test_every_strategy_there_is_stands_in_a_study_with_four_budgets() -> None:
    seen = {
        parse(text).strategy.name  # type: ignore[union-attr]
        for study in STUDIES
        for block in study.blocks
        for text in (block.levels[0].written(strategy) for strategy in block.strategies)
        if len(block.levels) == 4
    }
    assert seen == set(strategies())


def test_the_page_is_what_the_committed_figures_give() -> None:
    if not RESULTS:
        pytest.skip("no study has been run yet")
    told = [json.loads(path.read_text(encoding="utf-8")) for path in RESULTS]
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == page(told)
    for one in told:
        if one["study"]["kind"] == "comparison":
            chart = ROOT / "docs" / "figures" / f"{one['study']['name']}.svg"
            assert chart.read_text(encoding="utf-8") == figure(one)
    known = {study.name: study for study in STUDIES}
    for one in told:
        assert msgspec.convert(one["study"], Study) == known[one["study"]["name"]], "it was asked something else then"
