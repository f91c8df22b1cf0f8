"""Committed proofs belong to the code that stands here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import prove

ITEMS = {item.id: item for item in prove.load_items()}
RESULTS = sorted(prove.RESULTS.glob("*.json"))


def test_items_cover_files_that_exist() -> None:
    assert ITEMS
    for item in ITEMS.values():
        for pattern in item.watched():
            assert prove.covered_files((pattern,)), f"{item.id} covers {pattern}, which matches no file"


@pytest.mark.parametrize("item", ITEMS.values(), ids=list(ITEMS))
def test_every_item_has_a_result_or_says_why_not(item: prove.Item) -> None:
    stored = prove.read_result(item) is not None
    assert stored or item.pending, f"{item.id} has no result; run `make prove ARGS={item.id}`"
    assert not (stored and item.pending), f"{item.id} has a result; take `pending` out of items.toml"


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_committed_result_is_as_new_as_its_code(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    item = ITEMS[path.stem]
    assert result["passed"], f"the last run of {item.id} failed; repair it and run `make prove ARGS={item.id}`"
    assert result["covers"] == list(item.covers), f"{item.id} covers other files now; run `make prove ARGS={item.id}`"
    assert prove.is_current(item, result), f"{item.id} is older than its code; run `make prove ARGS={item.id}`"


def test_what_is_planned_is_no_item_yet() -> None:
    planned = prove.load_planned()
    assert all(what.endswith(".") for what in planned.values())
    assert not planned.keys() & ITEMS.keys()


def test_a_change_of_covered_code_makes_a_result_stale(tmp_path: Path) -> None:
    source = tmp_path / "src" / "a.py"
    source.parent.mkdir()
    source.write_text("x = 1\n", encoding="utf-8")
    item = prove.Item("demo", "a demonstration", ("src/**/*.py",), command=("true",))
    result = {"passed": True, "code_hash": prove.code_hash(item, tmp_path)}
    assert prove.is_current(item, result, tmp_path)
    source.write_text("x = 2\n", encoding="utf-8")
    assert not prove.is_current(item, result, tmp_path)
    source.write_text("x = 1\n", encoding="utf-8")
    assert prove.is_current(item, result, tmp_path)
    (source.parent / "b.py").write_text("", encoding="utf-8")
    assert not prove.is_current(item, result, tmp_path)


def test_a_change_of_the_tests_makes_a_result_stale(tmp_path: Path) -> None:
    test = tmp_path / "tests" / "test_a.py"
    test.parent.mkdir()
    test.write_text("def test_it(): assert 1 + 1 == 2\n", encoding="utf-8")
    item = prove.Item("demo", "a demonstration", (), tests=("tests/test_a.py::test_it[case]",))
    result = {"passed": True, "code_hash": prove.code_hash(item, tmp_path)}
    assert prove.is_current(item, result, tmp_path)
    test.write_text("def test_it(): assert True\n", encoding="utf-8")
    assert not prove.is_current(item, result, tmp_path)


def test_a_run_records_figures_and_failure() -> None:
    write = "import json, sys; json.dump({'n': 3}, open(sys.argv[1], 'w')); sys.exit(int(sys.argv[2]))"
    for code in (0, 1):
        item = prove.Item("demo", "a demonstration", (), command=("python", "-c", write, "{figures}", str(code)))
        result = prove.run_item(item)
        assert result["figures"] == {"n": 3}
        assert result["passed"] is (code == 0)
        assert "cores" in result["machine"]["hardware"]


def test_an_item_needs_tests_or_a_command(tmp_path: Path) -> None:
    (tmp_path / "items.toml").write_text('[[item]]\nid = "x"\nwhat = "nothing"\ncovers = []\n', encoding="utf-8")
    with pytest.raises(ValueError, match="item x: give either tests or a command"):
        prove.load_items(tmp_path)
