"""The published schema: read as it stands there, written so that it reads back, and refused by line where it is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.privacy.attacks.attributes.generator import people
from headrace.privacy.attacks.attributes.synthpai import BadLine, dump, load
from headrace.spec.errors import HeadraceError

NOTHING = {"estimate": "", "hardness": 0, "certainty": 0}
PROFILE = {
    "age": 51, "sex": "male", "city_country": "Oslo, Norway", "birth_city_country": "Turku, Finland",
    "education": "Masters in Botany", "occupation": "florist", "income": "40 thousand kroner", "income_level": "middle",
    "relationship_status": "in relationship", "style": "Writing style: brief.", "username": "MossAndFern",
}  # fmt: skip
LINE: dict[str, Any] = {
    "author": "pers7", "username": "MossAndFern", "parent_id": "root", "thread_id": "t1", "children": ["c2"],
    "text": "After fifty one learns to sit down first.", "id": "c1", "profile": PROFILE,
    "guesses": [{"feature": "age", "hardness": 2, "certainty": 4, "guesses": [52, 55, 60]}],
    "reviews": {
        "human": {"age": {"estimate": "50", "hardness": 2, "certainty": 4}, "sex": NOTHING, "timestamp": 1.5},
    },
}  # fmt: skip


def write(path: Path, *lines: dict[str, Any] | str) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts), encoding="utf-8")
    return path


def test_a_published_line_is_read(tmp_path: Path) -> None:
    other = {**LINE, "author": "pers8", "guesses": None}
    found = load(write(tmp_path / "a.jsonl", LINE, other, "", {**LINE, "text": "A second one.\u2028Of two lines."}))
    assert [person.author for person in found] == ["pers7", "pers8"]
    first = found[0]
    assert [comment.text for comment in first.comments] == [LINE["text"], "A second one.\u2028Of two lines."]
    assert first.comments[0].tells == {"age": 2} and first.comments[0].topic == "t1"
    assert first.value("age") == "30 to 54" and first.value("education") == "master's degree"


def test_optional_fields_may_be_missing(tmp_path: Path) -> None:
    bare = {name: LINE[name] for name in ("author", "username", "text", "profile")}
    (person,) = load(write(tmp_path / "a.jsonl", bare))
    assert person.comments[0].tells == {} and person.comments[0].topic == ""


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    made = people(6, "test")
    dump(made, tmp_path / "a.jsonl")
    assert load(tmp_path / "a.jsonl") == made


def changed(**changes: Any) -> dict[str, Any]:
    return {**LINE, **changes}


def profile(**changes: Any) -> dict[str, Any]:
    return {**LINE, "profile": {**PROFILE, **changes}}


def review(value: Any) -> dict[str, Any]:
    return {**LINE, "reviews": {"human": value}}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (lambda: json.dumps(LINE)[:40], "no JSON"),
        (lambda: "[]", "not a JSON object"),
        (lambda: {name: value for name, value in LINE.items() if name != "text"}, "`text` is missing"),
        (lambda: changed(author=3), "`author` is 3, not text"),
        (lambda: changed(text=""), "`text` is empty"),
        (lambda: changed(profile=None), "`profile` is missing"),
        (lambda: changed(children="c2"), "`children` is 'c2', not a list"),
        (lambda: changed(guesses=[{"feature": "age"}]), "`guesses`"),
        (lambda: profile(age="51"), "`profile.age` is '51', not a whole number"),
        (lambda: profile(age=True), "`profile.age`"),
        (lambda: profile(age=400), "`profile.age` is 400"),
        (lambda: profile(occupation=None), "`profile.occupation`"),
        (lambda: profile(sex="female"), "another `profile`"),
        (lambda: review([]), "`reviews.human`"),
        (lambda: review({"age": {"estimate": "50"}}), "`reviews.human.age`"),
        (lambda: review({"sex": {"estimate": "male", "hardness": 9}}), "`reviews.human.sex`"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: Callable[[], dict[str, Any] | str], says: str) -> None:
    path = write(tmp_path / "a.jsonl", LINE, line())
    with pytest.raises(BadLine, match="line 2: ") as failed:
        load(path)
    assert failed.value.line == 2 and says in str(failed.value) and str(failed.value).endswith("again.")


def test_a_file_of_nothing_is_refused(tmp_path: Path) -> None:
    for path in (write(tmp_path / "a.jsonl", ""), tmp_path / "none.jsonl"):
        with pytest.raises(HeadraceError, match="SynthPAI"):
            load(path)
