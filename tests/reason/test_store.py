"""Samples survive every kill, stand once each, and never mix with those of other settings."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from headrace.reason.evaluation.store import Record, Sample, Scoring, Store, budget_key
from headrace.spec.budget import Budget
from headrace.spec.errors import InvalidRequest

SETTINGS = {"model": "toy", "seed": 3}
SAMPLE = Sample(
    "toy/0", "single", "{}", 0, 5, "right", "7", "7 \u2013 é\n", None, 3, 8, 8, 0, 0, 1, 10.0, 0.5, "done", False, False
)


SCORING = Scoring("toy/0", 0, "judge", 0.1 + 0.2, 0, 7, 1, 3.5, 0.25)


def records(count: int) -> list[Record]:
    """Attempts, each with its scoring."""
    drawn = [replace(SAMPLE, draw=draw, ids=(3, draw)) for draw in range(count)]
    return [record for one in drawn for record in (one, replace(SCORING, draw=one.draw))]


def kept(store: Store) -> list[Record]:
    return sorted([*store.samples.values(), *store.scorings.values()], key=lambda r: (r.draw, isinstance(r, Scoring)))


def written(path: Path, count: int) -> bytes:
    with Store(path, SETTINGS) as store:
        for record in records(count):
            store.add(record)
    return path.read_bytes()


def test_what_was_added_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "s.jsonl"
    before = written(path, 3)
    with Store(path, SETTINGS) as store:
        assert kept(store) == records(3)
        for record in records(3)[1:3]:
            store.add(record)
    assert path.read_bytes() == before, "a record stands once"


def test_a_file_cut_at_any_byte_goes_on_to_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    whole = written(path, 3)
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        with Store(path, SETTINGS) as store:
            found = kept(store)
            assert found == records(3)[: len(found)]
        assert written(path, 3) == whole


OLD = {"format": 1, **SETTINGS, "scorer": None}
"""What began a file of format 1; its samples are as they were, but for the names that came later."""


def old_file(path: Path, settings: dict[str, object]) -> None:
    sample = asdict(SAMPLE)
    del sample["scorer"], sample["ids"]
    path.write_text("".join(json.dumps(line) + "\n" for line in (settings, sample)), encoding="utf-8")


def test_a_file_of_format_1_goes_on_where_its_attempts_belong_to_no_scorer(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    old_file(path, OLD)
    before = path.read_bytes()
    with Store(path, SETTINGS) as store:
        assert kept(store) == [SAMPLE]
        store.add(SCORING)
    assert path.read_bytes().startswith(before)
    with Store(path, SETTINGS) as store:
        assert kept(store) == [SAMPLE, SCORING]
    old_file(path, OLD | {"scorer": "judge"})
    with pytest.raises(InvalidRequest, match="format 1 and all its attempts belong to the scorer judge; give another"):
        Store(path, SETTINGS)


def test_other_settings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    before = written(path, 1)
    with pytest.raises(InvalidRequest, match="belongs to seed 3, this evaluation has 4; give another --store"):
        Store(path, SETTINGS | {"seed": 4})
    assert path.read_bytes() == before


def test_a_setting_that_only_one_side_has_is_refused(tmp_path: Path) -> None:
    path, more = tmp_path / "s.jsonl", SETTINGS | {"sampling": {"top_k": 1}}
    written(path, 1)
    with pytest.raises(InvalidRequest, match="belongs to sampling None, this evaluation has"):
        Store(path, more)
    path.unlink()
    Store(path, more).close()
    with pytest.raises(InvalidRequest, match=r"belongs to sampling .*, this evaluation has None"):
        Store(path, SETTINGS)


@pytest.mark.parametrize("line", ["no json", "[1, 2]", '{"item": "toy/0"}'])
def test_a_line_that_is_no_sample_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "s.jsonl"
    written(path, 1)
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InvalidRequest, match="line 4"):
        Store(path, SETTINGS)


def test_another_file_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text(json.dumps({"dear": "diary"}) + "\n")
    with pytest.raises(InvalidRequest, match="no store"):
        Store(path, SETTINGS)
    assert json.loads(path.read_text()) == {"dear": "diary"}


def test_two_evaluations_do_not_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    with Store(path, SETTINGS), pytest.raises(InvalidRequest, match="Another evaluation"):
        Store(path, SETTINGS)
    Store(path, SETTINGS).close()


def test_budgets_are_told_apart_to_the_last_digit() -> None:
    assert budget_key(Budget(tokens=1234567)) != budget_key(Budget(tokens=1234568))
    assert budget_key(Budget()) == "{}"
