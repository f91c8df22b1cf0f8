"""Texts by recipe: works stay whole, copies are left out, the two sides share nothing."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

import pytest

from headrace.privacy.attacks import corpora
from headrace.privacy.attacks.corpora import Work, docstrings, split, without_near_duplicates, works

SENTENCE = "the quick brown fox jumps over the lazy dog while nine small cats watch from a wall"


def test_a_module_and_its_tests_are_one_work() -> None:
    found = {work.name: work.texts for work in works("source")}
    assert len(found) > 100 and len(found["json"]) >= 5
    assert "argparse" in found and "test_argparse" not in found


def test_documentation_is_docstrings_and_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [(module.__name__, Path(module.__file__).read_text(encoding="utf-8")) for module in (argparse, textwrap)]
    monkeypatch.setattr(corpora, "library_files", lambda: files)
    found = {work.name: "".join(work.texts) for work in works("documentation")}
    assert "Parse" in found["argparse"] and "import argparse" not in found["argparse"]
    assert "topic while" in found


def test_docstrings_of_a_module() -> None:
    source = '"""One."""\nclass A:\n    """Two.\n\n    three\n    """\n    def f(self):\n        return "four"\n'
    assert list(docstrings(source)) == ["One.", "Two.\n\nthree"]
    assert list(docstrings("def broken(:")) == []


def test_a_split_is_by_work_and_about_even() -> None:
    found = [Work(str(number), ("x" * (number + 1),)) for number in range(80)]
    for seed in (0, 1):
        ours, theirs = split(found, seed)
        assert {*ours, *theirs} == {*found} and not {*ours} & {*theirs}
        sizes = [sum(len(text) for work in side for text in work.texts) for side in (ours, theirs)]
        assert 0.8 < sizes[0] / sizes[1] < 1.25
    assert split(found, 0) == split(found, 0) != split(found, 1)


def test_near_duplicates_are_left_out() -> None:
    copy = SENTENCE.upper() + "!"
    assert without_near_duplicates([SENTENCE, copy, "another text altogether, of nine words, is kept here"]) == (
        SENTENCE,
        "another text altogether, of nine words, is kept here",
    )
    assert without_near_duplicates([copy], seen=[SENTENCE]) == ()
