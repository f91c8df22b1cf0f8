"""Rows, comparisons, dominated strategies, and how they are written down."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from headrace.reason.evaluation.chart import chart
from headrace.reason.evaluation.equal import Votes
from headrace.reason.evaluation.pooled import Outcome, Question, pick
from headrace.reason.evaluation.report import COLUMNS, comparison_cells, markdown, sentence
from headrace.reason.evaluation.store import KINDS
from headrace.reason.evaluation.table import (
    Rival,
    Row,
    comparisons,
    dominated,
    holm_corrected,
    same_budget,
    sign_flip,
)
from headrace.reason.intervals import wilson
from reason.test_pooled import pool


def row(name: str, kinds: list[str], tokens: int, budget: str = "no bound", oracle: bool = False) -> Row:
    found = {str(k): [Outcome(kind, tokens, 10, 0.5, 3)] for k, kind in enumerate(kinds)}  # type: ignore[arg-type]
    return Row(name, budget, "live", oracle, found)


GOOD = ["right"] * 18 + ["wrong", "budget"]
POOR = ["right"] * 6 + ["wrong"] * 12 + ["unparsed", "timeout"]


def test_one_run_a_question_has_wilsons_interval_and_its_classes() -> None:
    told = row("single", GOOD, 5).as_json()
    assert told["accuracy"] == 0.9 and told["interval"] == list(wilson(18, 20))
    assert told["classes"] == pytest.approx({"right": 0.9, "wrong": 0.05, "unparsed": 0, "timeout": 0, "budget": 0.05})
    assert (told["decode_tokens"], told["total_tokens"], told["peak_pages"]) == (5, 15, 3)
    assert set(told["classes"]) == set(KINDS)


def test_several_runs_a_question_are_clusters() -> None:
    both = {"a": ["right", "right"], "b": ["wrong", "wrong"]}
    found = {item: [Outcome(kind, 1, 1, 0.0, 1) for kind in kinds] for item, kinds in both.items()}  # type: ignore[arg-type]
    told = Row("x", "no bound", "pool", False, found)
    assert told.accuracy == 0.5 and told.interval == (0.0, 1.0), "two questions, however many runs"


def test_a_difference_is_paired_and_says_what_could_be_seen() -> None:
    rows = [row("self_consistency(n=4)", POOR, 40), row("best", GOOD, 40), row("same", POOR, 40)]
    rows += [row("elsewhere", GOOD, 40, "9 tok")]
    best, same = comparisons(rows, same_budget(rows, "self_consistency(n=4)"))
    assert best.difference == pytest.approx(0.6) and best.verdict == "better" and best.interval[0] > 0
    assert best.p == pytest.approx(2 / 2**12, abs=4e-4) and best.holm == 2 * best.p
    assert (same.difference, same.p, same.verdict) == (0.0, 1.0, "no difference shown")
    assert best.detectable is not None and 0 < best.detectable < 1 and same.detectable == 0


@pytest.mark.parametrize(
    ("kinds", "rival", "tokens", "verdict"),
    [
        (GOOD, POOR, 40, "better"),
        (GOOD, POOR, 60, "better"),
        (GOOD, POOR, 20, "unequal tokens"),
        (POOR, GOOD, 40, "worse"),
        (POOR, GOOD, 20, "worse"),
        (POOR, GOOD, 60, "unequal tokens"),
        (GOOD, GOOD, 60, "no difference shown"),
    ],
)
def test_no_verdict_at_unequal_tokens(kinds: list[str], rival: list[str], tokens: int, verdict: str) -> None:
    """Better for fewer tokens than its rival holds all the more, for more it does not; worse the other way round."""
    other = Rival("vote of 9", tokens, row("", rival, 0).values)
    (found,) = comparisons([row("x", kinds, 40)], lambda row: other)
    assert found.verdict == verdict and (found.tokens, found.rival_tokens) == (40, tokens)


def test_the_vote_beside_a_row_draws_as_many_tokens() -> None:
    questions = [
        replace(pool([("a", 0, 10), ("b", 0, 20), ("a", 0, 30)]), item="0"),
        replace(pool([("b", 0, 20), ("b", 0, 20), ("a", 0, 20)]), item="1"),
    ]
    votes = Votes(questions)
    assert votes.cost == 20 and votes.most == 3
    for drawn, k, spent in ((20, 1, 20), (50, 2.5, 50), (60, 3, 60), (90, 3, 60), (0, 1, 20)):
        rival = votes.beside(row("best_of_n(n=2)", ["right", "wrong"], drawn))
        assert rival is not None and (rival.name, rival.tokens) == (f"vote of {k:g}", spent)
        assert rival.values == pytest.approx({str(q): by_hand(questions[q], k) for q in range(2)})
    assert votes.beside(replace(row("self_consistency(n=2)", ["right", "wrong"], 40), source="pool")) is None
    assert votes.beside(replace(row("single", ["right", "wrong"], 40), source="pool")) is None
    assert votes.beside(row("self_consistency(n=2) | rank", ["right", "wrong"], 40)) is not None


def by_hand(question: Question, k: float) -> float:
    """Every choice of k, in every order; of half a k the mean of both."""
    if k % 1:
        return (by_hand(question, k - 0.5) + by_hand(question, k + 0.5)) / 2
    won = [
        question.samples[pick("vote", question, order)].kind == "right"
        for order in itertools.permutations(range(len(question.samples)), int(k))
    ]
    return sum(won) / len(won)


def test_signs_are_flipped_question_by_question() -> None:
    given = np.array([0.5, 0.2, -0.1, 0.3, 0.4, 0.0, 0.0])
    sums = [abs(np.dot(signs, given)) for signs in itertools.product((1, -1), repeat=len(given))]
    exact = np.mean([one >= given.sum() - 1e-9 for one in sums])
    assert sign_flip(given) == pytest.approx(exact, abs=0.01) and 0.1 < exact < 0.2
    assert sign_flip(-given) == sign_flip(given) and sign_flip(np.zeros(4)) == 1.0
    rng = np.random.default_rng(1)
    chance = [sign_flip(rng.binomial(1, 0.7, 40) - 0.7, 999, seed) < 0.05 for seed in range(400)]
    assert 0.02 < np.mean(chance) < 0.09, "one run a question against an exact share: no false alarms beyond 5 %"


def test_two_that_are_the_same_everywhere_promise_no_detectable_difference() -> None:
    same = {
        "strategy": "single",
        "budget": "no bound",
        "tokens": 40.0,
        "rival": "vote of 2",
        "rival_tokens": 40.0,
        "difference": 0.0,
        "interval": (0.0, 0.0),
        "p": 1.0,
        "holm": 1.0,
    }
    same |= {"detectable": 0.0, "verdict": "no difference shown"}
    assert "four times in five" not in sentence({"comparisons": [same]})
    assert "four times in five: 12.0%" in sentence({"comparisons": [same, same | {"detectable": 0.12}]})
    columns, rows = comparison_cells([same, same | {"detectable": 0.12}])
    assert [one[columns.index("detectable")] for one in rows] == ["", "12.0%"]
    none = same | {"detectable": 1.4}
    assert "four times in five: none. " in sentence({"comparisons": [none]})
    assert "four times in five: 12.0% to none. " in sentence({"comparisons": [none, same | {"detectable": 0.12}]})
    assert [one[columns.index("detectable")] for one in comparison_cells([none])[1]] == ["none"]


def test_a_row_is_dominated_by_one_as_right_for_less() -> None:
    rows = [row("a", GOOD, 40), row("b", POOR, 40), row("c", POOR, 10), row("d", GOOD, 40), row("e", GOOD, 50)]
    assert dominated(rows) == {1: 0, 4: 0}


def test_holm() -> None:
    assert holm_corrected([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm_corrected([]) == []


def figures() -> dict:
    rows = [row("self_consistency(n=4)", POOR, 80), row("a & b | c<d>", GOOD, 80)]
    told = [one.as_json() | {"dominated_by": None} for one in rows]
    settings = {"task": "toy", "model": "m", "profile": "p", "temperature": 0.8, "max_tokens": 40, "seed": 1}
    return {
        "settings": settings,
        "scorer": None,
        "questions": 20,
        "baseline": "self_consistency(n=4)",
        "rows": told,
        "comparisons": [one.as_json() for one in comparisons(rows, same_budget(rows, "self_consistency(n=4)"))],
        "oracle": [row("best_of_n", GOOD, 40, oracle=True).as_json() | {"dominated_by": None}],
        "pool": None,
    }


def test_the_page_says_what_beat_what_and_keeps_oracles_apart() -> None:
    page = markdown(figures(), "eval.svg")
    lines = page.splitlines()
    assert page.index("## Accuracy") < page.index("## Against") < page.index("## Oracle runs")
    assert page.rindex("best_of_n") > page.index("## Oracle runs") > page.index("a & b")
    for start in [k for k, line in enumerate(lines) if set(line) <= set("| -") and line]:
        width = len(re.split(r"(?<!\\)\|", lines[start]))
        assert len(re.split(r"(?<!\\)\|", lines[start - 1])) == len(re.split(r"(?<!\\)\|", lines[start + 1])) == width
    assert "better: a & b | c<d>; worse: none" in sentence(figures())
    assert f"| {COLUMNS[0]} |" in page and "![" in page


def test_the_chart_is_sound_and_shows_every_row() -> None:
    root = ElementTree.fromstring(chart(figures()["rows"], "a < b"))
    space = "{http://www.w3.org/2000/svg}"
    texts = [element.text for element in root.iter(f"{space}text")]
    assert "a & b | c<d>" in texts and "self_consistency(n=4)" in texts
    assert len(list(root.iter(f"{space}circle"))) == 2 + 2
    numbers = [float(found) for element in root.iter() for found in re.findall(r"-?\d+\.\d+", str(element.attrib))]
    assert all(0 <= number <= 760 for number in numbers)
    ElementTree.fromstring(chart([], "nothing"))
