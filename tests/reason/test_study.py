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
from headrace.reason.evaluation.study import (
    Block,
    Level,
    Study,
    carried_out,
    designs,
    how_of,
    read_studies,
    recomputed,
    shortened,
)
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
    assert found["figures"]["pool"]["samples"] == 4
    with Store(tmp_path / "toy.jsonl", SETTINGS) as kept:
        first = told(store=kept)
    with Store(tmp_path / "toy.jsonl", SETTINGS) as kept:
        assert told(store=kept) == first, "the second run takes everything from the store"
    asked = toy_items(TOY.questions)
    with pytest.raises(InvalidRequest, match="of another study"):
        recomputed(TOY, asked, TextScorer(), Store.load(tmp_path / "toy.jsonl"))
    kept = Store.load(tmp_path / "toy.jsonl")
    kept.settings |= {"task": TOY.task, "seed": TOY.seed, "temperature": TOY.temperature}
    again = recomputed(TOY, asked, TextScorer(), kept)
    assert json.loads(json.dumps(again | {"settings": 0})) == first["figures"] | {"settings": 0}
    del kept.samples[next(iter(kept.samples))]
    with pytest.raises(InvalidRequest, match="lacks 1 runs of toy"):
        recomputed(TOY, asked, TextScorer(), kept)


def test_every_strategy_but_the_vote_itself_meets_the_vote_of_its_own_tokens() -> None:
    figures = told()["figures"]
    rows = {(row["called"], row["budget"]): row for row in figures["rows"]}
    compared = {(one["called"], one["budget"]): one for one in figures["comparisons"]}
    votes = {key for key in rows if key[0].startswith(("single", "self_consistency"))}
    assert compared.keys() == rows.keys() - votes and len(compared) == 2 * 2
    attempt, most = figures["pool"]["tokens"], figures["pool"]["tokens"] * figures["pool"]["samples"]
    for key, one in compared.items():
        assert one["tokens"] == rows[key]["decode_tokens"]
        assert one["rival_tokens"] == pytest.approx(min(max(one["tokens"], attempt), most))
        assert one["rival"] == f"vote of {one['rival_tokens'] / attempt:.3g}"


def test_holm_corrects_over_the_whole_table() -> None:
    compared = told()["figures"]["comparisons"]
    assert [one["holm"] for one in compared] == holm_corrected([one["p"] for one in compared])
    assert len(compared) == 2 * 2


def test_the_page_says_every_verdict_class_and_difference() -> None:
    whole = told()
    text = page([whole])
    for one in whole["figures"]["comparisons"]:
        cell = f"{100 * one['difference']:+.1f} [{100 * one['interval'][0]:+.1f}, {100 * one['interval'][1]:+.1f}]"
        assert cell in text and f"; {one['rival']}" in text
    for row in whole["figures"]["rows"]:
        assert f"]; {row['decode_tokens']:.0f} |" in text, "the tokens that were spent stand beside the budget"
    for words in ("- better: ", "- worse: ", "- no difference shown: ", "four times in five: ", "AUC ", "c0ffee"):
        assert words in text
    assert figure(whole).count("<polyline") == len({row["called"] for row in whole["figures"]["rows"]})
    better = json.loads(json.dumps(whole))
    better["figures"]["comparisons"][0] |= {"verdict": "better", "holm": 0.01}
    called = better["figures"]["comparisons"][0]["called"]
    assert f"- better: `{called}` at 40 tok (Holm)." in page([better])
    better["figures"]["comparisons"][0] |= {"verdict": "unequal tokens"}
    assert f"- unequal tokens: `{called}` at 40 tok." in page([better])


def test_the_page_says_where_its_figures_come_from() -> None:
    quality = {"auc": 0.5, "interval": [0.4, 0.6]}
    probe = {"questions": 51, "attempts": 204, "half": quality, "end": quality | {"auc": 0.75}}
    text = page([told() | {"probe": probe, "again": {"date": "2026-02-02", "commit": "decaf"}}])
    assert "204 attempts at 51 questions; held out, its AUC over those is 0.750 [0.400, 0.600]" in text
    assert "Run of 2026-01-01 at `c0ffee` on a toy; figures of 2026-02-02 at `decaf`; samples toy.jsonl" in text
    baseline = msgspec.structs.replace(TOY, name="base", kind="baseline", blocks=(Block(("single",)),))
    text = page([told(baseline) | {"shared": {"toy": 41}}])
    assert "| 41 by toy |" in text and "no independent second look" in text
    greedy = msgspec.structs.replace(TOY, blocks=(Block(("self_consistency(n=4)", "adaptive_best_of_n(n=1)")),))
    found = told(greedy)
    likeliest = found["figures"]["rows"][1]["accuracy"]
    assert f"the likeliest one (`adaptive_best_of_n(n=1)`) in {likeliest:.1%}" in page([found])


def test_what_cannot_be_read_is_said_in_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    for text in ("", "[[study]]\nname = 'x'\n", "[[study]\n"):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(InvalidRequest, match="holds no studies"):
            read_studies(file)


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_a_study_can_be_carried_out(study: Study) -> None:
    """Its strategies are read, and have the pool that they need and are compared with."""
    scorer = TextScorer() if study.scorer else None
    asked = shortened(toy_items(2), study.max_tokens)
    for _, texts, design in designs(study, asked):
        needs = frozenset().union(*(parse(text).needs for text in texts))
        if needs <= {"scorer"}:
            checked(design, how_of(study, scorer))
    assert study.kind == "baseline" or study.samples, "there is a vote to compare with"


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
