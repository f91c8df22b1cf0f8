"""The allocator finds the best plan for planted groups of difficulty, on questions that it never saw."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest

from headrace.reason.allocator import (
    DEFAULT,
    STAY,
    Record,
    Table,
    Tried,
    calibrate,
    cross_fitted,
    difficulty,
    table_named,
    table_path,
)
from headrace.reason.answers import Number
from headrace.reason.intervals import paired_bootstrap
from headrace.spec.errors import InvalidRequest
from headrace.spec.reasoning import Candidate
from reason.toy import ORDER, solved, toy_engine

PLANS = {"single": 1, "best_of_n(n=4)": 4, "best_of_n(n=16)": 16}
GROUPS = {0.05: 0.98, 0.5: 0.45, 0.9: 0.10}
"""Mean difficulty as it is seen: the chance of one attempt to be right."""


def population(count: int, seed: int) -> list[Record]:
    """Best of n with an exact verifier on questions of three groups, and a noisy look at which group it is."""
    rng = Random(seed)
    records = []
    for _ in range(count):
        seen, p = rng.choice(list(GROUPS.items()))
        plans = {plan: Tried(float(any(rng.random() < p for _ in range(n))), 50.0 * n) for plan, n in PLANS.items()}
        records.append(Record(min(max(seen + rng.gauss(0, 0.05), 0), 1), plans))
    return records


def test_the_table_learns_the_plan_of_each_planted_group() -> None:
    table = calibrate(population(600, 1), price=0.0005)
    assert table.plans == ("single", "best_of_n(n=4)", "best_of_n(n=16)")
    assert 0.05 < table.edges[0] < 0.5 < table.edges[1] < 0.95


def test_by_difficulty_costs_half_of_the_same_for_all_at_equal_accuracy() -> None:
    records = population(800, 2)
    fitted = cross_fitted(records, price=0.0005)
    uniform = [record.plans["best_of_n(n=16)"] for record in records]
    accuracy = float(np.mean([tried.right for tried in uniform]))
    assert fitted.tokens < 0.5 * float(np.mean([tried.tokens for tried in uniform]))
    assert fitted.right > accuracy - 0.06
    four = [record.plans["best_of_n(n=4)"].right for record in records]
    table = calibrate(population(800, 3), price=0.0005)
    ours = [record.plans[table.plan(record.difficulty)].right for record in records]
    low, _ = paired_bootstrap(ours, four)[1]
    assert low > 0, "more right than four for all"


def test_difficulty_needs_no_gold_answer_and_rises_with_disagreement() -> None:
    def probe(*answers: str | None, score: float | None = None) -> list[Candidate]:
        return [Candidate(i, "", "", answer, score=score) for i, answer in enumerate(answers)]

    space = Number()
    agree, split, apart = (difficulty(probe(*a), space) for a in ("1111", "1122", "1234"))
    assert (agree, split, apart) == (0.0, 0.5, 0.75)
    assert difficulty(probe("1", "1", None, None), space) == 0.5, "an attempt without an answer agrees with none"
    assert difficulty(probe(None, None), space) == 1.0 and difficulty([], space) == 1.0
    assert difficulty(probe("1", "1", score=0.2), space) == pytest.approx(0.4)


def test_a_table_survives_saving_and_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path))
    table = Table((0.25, 0.5), (STAY, "self_consistency(n=4)", "self_consistency(n=8)"), 3)
    table.save(table_path("mine"))
    assert table_named("mine", scored=False) == table
    assert table_named("default", scored=False) == DEFAULT
    with pytest.raises(InvalidRequest, match="calibrate one"):
        table_named("other", scored=False)
    for name in ("../secret", "/etc/passwd", "", "a" * 65, "mine.json"):
        with pytest.raises(InvalidRequest, match="no name of a table"):
            table_named(name, scored=False)
    with pytest.raises(InvalidRequest, match="never choose"):
        Table((), ("auto",))


def test_auto_keeps_its_probes_as_the_first_candidates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path))
    Table((2.0,), ("self_consistency(n=3)", STAY), 2).save(table_path("more"))
    Table((0.0,), ("self_consistency(n=3)", STAY), 2).save(table_path("stay"))
    with toy_engine() as engine:
        more = solved(engine, "auto(table='more')", scorer=None)
        assert [c.origin for c in more.candidates] == ["probe", "probe", "", "", ""]
        assert len(solved(engine, "auto(table='stay')", scorer=None).candidates) == 2
        (chosen,) = list(more.trace.of("chosen"))
        assert chosen.data["plan"] == "self_consistency(n=3)" and 0 <= chosen.data["difficulty"] <= 1
        assert ORDER.scorer is not None and solved(engine, "auto").candidates[0].score is not None
