"""Contests under one token budget, and the claim of the six methods in its quick size."""

from __future__ import annotations

import functools

import pytest

from headrace.evidence.adder import adder
from headrace.evidence.claims import bag_of_tricks as bag
from headrace.evidence.scripted import END
from headrace.evidence.systems import system
from headrace.reason.tasks.arith import Problem

SCRIPTED = functools.cache(bag.on_a_script)


@pytest.fixture(autouse=True)
def run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bag, "on_a_script", SCRIPTED)


def test_six_methods_quick() -> None:
    found = bag.run("quick")
    assert tuple(clause.text for clause in found.clauses) == system(19).clauses
    assert [clause.status for clause in found.clauses] == ["open", "open", "open", "passed"]
    assert "spent 1.000 to 1.000" in found.clauses[0].figure and found.null_run.status == "passed"
    assert "outside: " in found.null_run.figure and "runs differ" in found.null_run.figure


def test_a_table_and_its_comparisons() -> None:
    runs = bag.on_a_script()
    clause = bag.tabulated([runs.first])
    assert clause.status == "passed" and clause.figure.count("best-of-N") >= 2 and "detectable" in clause.figure
    figures = bag.figures_of(runs.first)
    assert len(figures) == 18 and figures["scripted MCTS spent"] == [1.0]
    assert bag.under_one_budget([runs.first], models=2).status == "failed"
    assert bag.identical([]).status == "failed"


def test_the_adder_errs_in_the_last_digit_and_goes_on_from_there() -> None:
    problem = Problem("sums", "7+8-3=\n", 7, (("+", 8), ("-", 3)))
    chances = adder([problem], error=0.1, doubt=0.3)
    assert chances("7+8-3=\n7+8=1") == {"5": 0.9, "6": 0.1}
    assert chances("7+8-3=\n7+8=16\n1") == {"6": 1.0}
    assert chances("7+8-3=\n7+8=16\n16-3=13\n") == {"A": 1.0}
    assert chances("7+8-3=\n7+8=16\n16-3=13\nAnswer: 13") == {END: 1.0}
    assert chances("7+8-3=\n7+8=15\nRight? ") == {"y": 0.7, "n": 0.3}
    assert chances("7+8-3=\n7+8=16\nRight? n") == {"o": 1.0}
