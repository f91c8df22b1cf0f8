"""Attacks find what is said outright and nothing where nothing is said; their intervals are by person."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headrace.engine.engine import Engine
from headrace.evidence.scripted import scripted_engine
from headrace.privacy.attacks.attributes import run
from headrace.privacy.attacks.attributes.asked import asked, log_likelihood
from headrace.privacy.attacks.attributes.audit import WORDS, Audit, split
from headrace.privacy.attacks.attributes.classifier import Remembered, bag_of_words, chances, fit
from headrace.privacy.attacks.attributes.found import Found, interval, score
from headrace.privacy.attacks.attributes.generator import people
from headrace.privacy.attacks.attributes.people import ATTRIBUTES, Comment, Person, values_of
from headrace.privacy.attacks.attributes.synthpai import dump
from headrace.spec.errors import HeadraceError, InvalidRequest
from privacy.attacks.attributes.told import reader

pytest.importorskip("scipy", reason="scipy is not installed: pip install 'headrace[privacy]'")
TRAIN = people(36, "train", levels=("direct",))
PLAIN = people(24, "test", levels=("direct",))
SILENT = people(24, "test", levels=())
NAMED = tuple(name for name in ATTRIBUTES if name != "age")
"""Said outright an age is a number, and its band is not among the words."""


@pytest.fixture(scope="module")
def audit() -> Audit:
    return Audit(TRAIN, bag_of_words, name=WORDS)


@pytest.fixture
def attentive() -> Iterator[Engine]:
    with scripted_engine(reader(prejudice=20), context=4096, pages=4000) as engine:
        yield engine


def test_a_classifier_finds_what_is_said_outright(audit: Audit) -> None:
    (found,) = audit.attack(PLAIN)
    assert found.above_chance and found.over_majority.low > 0
    assert all(found.attributes[name].first.value > 0.9 for name in ("city_country", "birth_city_country", "education"))


def test_a_classifier_finds_all_where_values_are_planted() -> None:
    def planted(some: Sequence[Person]) -> list[Person]:
        told = (tuple(Comment(f"Listed as {p.value(n)}.", "lists", {n: 1}) for n in ATTRIBUTES) for p in some)
        return [replace(person, comments=comments) for person, comments in zip(some, told, strict=True)]

    (found,) = Audit(planted(TRAIN), bag_of_words).attack(planted(PLAIN))
    assert found.overall.value > 0.95 and found.overall.low > 0.9


def test_a_classifier_finds_nothing_where_nothing_is_said(audit: Audit) -> None:
    (found,) = audit.attack(SILENT)
    assert found.overall.contains_chance and found.over_majority.low < 0 < found.over_majority.high


def test_a_model_is_asked_past_its_prejudice(attentive: Engine) -> None:
    some, values = PLAIN[:4], values_of(TRAIN)
    scores = asked(attentive, some, values)
    found = score("model", scores, some, TRAIN, values)
    assert all(found.attributes[name].first.value == 1 for name in NAMED)
    assert all(table.shape == (4, len(values[name])) for name, table in scores.items())


def test_a_model_finds_nothing_where_nothing_is_said(attentive: Engine) -> None:
    scores = asked(attentive, SILENT[:3], values_of(TRAIN))
    assert max(np.abs(table).max() for table in scores.values()) < 1e-4


def test_a_defence_takes_away_what_it_covers(audit: Audit, attentive: Engine) -> None:
    both = Audit(TRAIN, audit.trained.embed, attentive, most=3, name=WORDS)
    plain = both.attack(PLAIN)
    behind = both.defence("redaction", PLAIN, plain)
    assert [one.attack for one in behind.found] == [WORDS, "scripted"]
    assert behind.taken[0].low > 0 and behind.taken[1].value > 0
    for name in ("city_country", "birth_city_country", "occupation"):
        assert behind.found[0].attributes[name].first.value < plain[0].attributes[name].first.value
    assert 0 < behind.similarity < 1 and behind.log_likelihood is not None
    assert behind.topics is not None and all(0 <= share <= 1 for share in behind.topics)


def test_a_model_s_likelihood_is_a_mean_over_tokens(attentive: Engine) -> None:
    """The script has no chance for any text but its own: -60 nats a character, near enough."""
    assert log_likelihood(attentive, ["Ab.", "Abcdef."]) == pytest.approx(-60, abs=1)


def test_the_fit_finds_a_planted_rule() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((300, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = vectors[:, :3].argmax(axis=1)
    found = chances(fit(vectors[:200], np.eye(3)[labels[:200]]), vectors[200:])
    assert (found.argmax(axis=1) == labels[200:]).mean() > 0.85 and found.sum(axis=1) == pytest.approx(1)


def test_a_vector_seen_often_counts_as_often() -> None:
    vectors = np.eye(3)[[0, 0, 0, 1, 2]]
    labels = np.eye(2)[[0, 0, 1, 1, 0]]
    counts = np.array([[2.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    assert fit(vectors, labels) == pytest.approx(fit(np.eye(3), counts), abs=1e-4)


def test_without_scipy_the_next_step_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(HeadraceError, match="pip install"):
        fit(np.eye(2), np.eye(2))


def test_no_text_is_embedded_twice() -> None:
    asked_for: list[str] = []

    def embed(texts: list[str]) -> np.ndarray:
        asked_for.extend(texts)
        return bag_of_words(texts)

    remembered = Remembered(embed)  # type: ignore[arg-type]
    first, again = remembered(["a b", "c", "a b"]), remembered(["c", "a b"])
    assert asked_for == ["a b", "c"] and (first[[1, 0]] == again).all()


def shown(hits: np.ndarray) -> Found:
    """What an attack with these hits found, bool [people, attributes]."""
    some, values = PLAIN[: len(hits)], values_of(TRAIN)
    scores = {}
    for column, (name, choices) in enumerate(values.items()):
        places = [choices.index(person.value(name)) for person in some]
        wanted = [place if hit else place - 1 for place, hit in zip(places, hits[:, column], strict=True)]
        scores[name] = np.eye(len(choices))[wanted]
    return score("planted", scores, some, TRAIN, values)


def test_shares_are_of_first_guesses() -> None:
    hits = np.random.default_rng(0).random((24, 8)) < 0.4
    found = shown(hits)
    assert (found.hits == hits).all() and found.overall.value == pytest.approx(hits.mean())
    assert found.overall.chance == pytest.approx(np.mean([1 / len(v) for v in values_of(TRAIN).values()]))
    occupation = found.attributes["occupation"]
    assert (occupation.k, occupation.values, occupation.among.chance) == (3, 6, 0.5)
    assert found.attributes["sex"].k == 1


def test_people_who_are_found_whole_widen_the_interval() -> None:
    spread, whole = np.zeros((24, 8), bool), np.zeros((24, 8), bool)
    spread[:, :4], whole[:12] = True, True
    wide, narrow = (shown(hits).overall for hits in (whole, spread))
    assert wide.value == narrow.value == 0.5 and narrow.high - narrow.low < 1e-9
    assert wide.high - wide.low == pytest.approx(0.4, abs=0.06)  # 2 x 1.96 x sqrt(1/4 / 24)


def test_differences_are_paired_by_person() -> None:
    one = np.zeros((24, 8), bool)
    one[:12] = True
    less = one.copy()
    less[:, 0] = False
    apart = shown(one).less(shown(less))
    assert apart.value == pytest.approx(1 / 16) and 0 < apart.low < apart.high < 1 / 8
    with pytest.raises(InvalidRequest):
        shown(one).less(shown(one[:5]))


def test_a_value_nobody_trained_on_has_is_not_found() -> None:
    lone = TRAIN[0]
    values = {**values_of(TRAIN), "occupation": (lone.value("occupation"), "astronaut")}
    scores = {name: np.zeros((len(PLAIN), len(choices))) for name, choices in values.items()}
    found = score("none", scores, PLAIN, [lone], values)
    assert found.attributes["occupation"].first.value == pytest.approx(4 / 24)


def test_an_interval_of_people_covers_the_truth() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for seed in range(200):
        low, high = interval(rng.binomial(8, 0.3, size=40) / 8, seed)
        inside += low <= 0.3 <= high
    assert 0.89 <= inside / 200 <= 0.99


def test_the_whole_audit_is_json(tmp_path: Path) -> None:
    found = run(embedder=WORDS, people=10, training=20, defences=("redaction",))
    assert json.loads(json.dumps(found))["attacks"][WORDS]["attributes"]["sex"]["values"] == 2
    low, high = found["interval"]
    assert low <= found["recovery"] <= high and found["best"] == WORDS and found["cost"]["seconds"] > 0
    assert set(found["defences"]) == {"redaction"} and found["comments"] == 100


def test_a_file_is_split_by_author(tmp_path: Path) -> None:
    dump(people(9, "test"), tmp_path / "a.jsonl")
    train, tried = split(tmp_path / "a.jsonl", 60, 96, 0)
    assert (len(train), len(tried)) == (5, 4) and not {p.author for p in train} & {p.author for p in tried}
    dump(people(1, "test"), tmp_path / "b.jsonl")
    with pytest.raises(InvalidRequest, match="one author"):
        split(tmp_path / "b.jsonl", 60, 96, 0)


def test_what_cannot_be_done_is_refused(audit: Audit) -> None:
    with pytest.raises(InvalidRequest, match="redaction"):
        run(defences=("silence",))
    with pytest.raises(InvalidRequest):
        Audit((), bag_of_words)
    with pytest.raises(InvalidRequest):
        audit.attack(())
