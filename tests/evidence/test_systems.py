"""The data file of the 102 systems."""

from __future__ import annotations

import pytest

from headrace.evidence.systems import GRADE_CHECK, STATES, load_systems, system
from headrace.spec.errors import InvalidRequest

FOLDERS = {
    "cli", "server", "evidence", "reason", "ground", "privacy", "adapt", "engine", "plan", "backends", "mesh",
    "model", "schedule", "spec",
}  # fmt: skip


def test_all_102_systems_are_there_once() -> None:
    systems = load_systems()
    assert [row.number for row in systems] == list(range(1, 103))
    assert len({row.id for row in systems}) == len({row.title for row in systems}) == 102


def test_every_row_is_whole() -> None:
    for row in load_systems():
        assert row.state in STATES and row.kind
        assert row.grades and set(row.grades) <= set(GRADE_CHECK), row.id
        assert list(row.grades) == sorted(row.grades, key="EFM".index), row.id
        assert row.lives_in and set(row.lives_in) <= FOLDERS, row.id
        assert len(row.clauses) >= 2 and len(set(row.clauses)) == len(row.clauses), row.id
        for text in (row.contributes, *row.clauses):
            assert text[0] == text[0].upper() and text.endswith(".") and 10 < len(text) < 260, (row.id, text)


def test_an_unknown_number_is_refused() -> None:
    assert system(48).id == "procbench"
    for number in (0, 103):
        with pytest.raises(InvalidRequest):
            system(number)
