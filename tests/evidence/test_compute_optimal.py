"""Compute by difficulty: the instruments on planted pools, where it is known what has to come out."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import pytest

from headrace.evidence.allocating import Board, against, matched
from headrace.evidence.claims import compute_optimal
from headrace.evidence.claims.compute_optimal import PLAIN, ROW, TABLE, WEIGHTED, planted
from headrace.evidence.registry import load_results
from headrace.reason.allocator import SHIPPED, STAY, Table, Tried, read_table


@cache
def board() -> Board:
    return Board.of(planted(60, seed=4))


def test_quick_run_judges_planted_pools_and_claims_nothing() -> None:
    found = compute_optimal.run("quick")
    assert tuple(clause.text for clause in found.clauses) == ROW.clauses
    assert {clause.status for clause in found.clauses} == {"open"} and found.null_run.status == "passed"
    assert all("on planted pools passed" in clause.figure for clause in found.clauses)


def test_tables_save_what_hopeless_and_easy_questions_would_waste() -> None:
    found = against(board(), PLAIN)
    assert found.ratio < 0.5 < against(board(), PLAIN, bins=1).ratio
    assert found.gain > -0.02 and all(table.plans[0] == STAY for table in found.tables)
    assert against(board().shuffled(), PLAIN).ratio > found.ratio, "it is the difficulty that saves"
    assert found.reaches(0.02, 0.5) and not found.reaches(0.02, 0.2)


def test_no_table_sees_the_questions_it_is_tried_on() -> None:
    whole = board()
    blank = Tried(0.0, 1.0)
    spoilt = [
        [row._replace(plans=dict.fromkeys(row.plans, blank) | {STAY: row.plans[STAY]}) for row in rows]
        for rows in whole.found
    ]
    tried_on = whole.fold(1)
    mixed = replace(whole, found=[spoilt[k] if k in tried_on else rows for k, rows in enumerate(whole.found)])
    before, after = against(whole, WEIGHTED).tables, against(mixed, WEIGHTED).tables
    assert after[1] == before[1], "what the tables are tried on leaves them as they are"
    assert set(after[0].plans) == {STAY} != set(before[0].plans)


def test_a_match_spends_no_more_than_the_large_model_and_names_losses() -> None:
    alone, trained = matched(board()), matched(board(), trained=1.0)
    assert all(one.spent <= 1 for one in (*alone, *trained))
    assert all(more.attempts > one.attempts for one, more in zip(alone, trained, strict=True))
    assert alone[0].verdict == "small wins" and alone[-1].verdict == "small loses"
    assert "small loses" in compute_optimal.judged_match(board()).figure


def test_the_shipped_table_is_the_one_that_the_result_found() -> None:
    stored = load_results().get(ROW.id)
    if stored is None:
        pytest.skip("the claim has no result yet")
    told = json.loads(str(stored.numbers["table"]))
    assert read_table(SHIPPED / f"{TABLE}.json") == Table(tuple(told["edges"]), tuple(told["plans"]), told["probe"])
