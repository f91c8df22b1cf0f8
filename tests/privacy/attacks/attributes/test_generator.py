"""Generated people: known values, comments that tell them, and nothing said on both sides."""

from __future__ import annotations

from collections import Counter

from headrace.privacy.attacks.attributes.generator import HARDNESS, known_values, people, sentences
from headrace.privacy.attacks.attributes.people import AGES, ATTRIBUTES, Person, values_of
from headrace.privacy.attacks.attributes.tables import table


def test_the_same_seed_makes_the_same_people() -> None:
    assert people(5, "test", 3) == people(5, "test", 3) != people(5, "test", 4)


def test_values_are_dealt_out_evenly_and_all_occur() -> None:
    made = people(60, "train")
    assert values_of(made) == {name: tuple(sorted(known_values(name))) for name in ATTRIBUTES}
    for name in ATTRIBUTES:
        counts = Counter(person.value(name) for person in made)
        assert max(counts.values()) - min(counts.values()) <= 1, name


def test_attributes_do_not_tell_each_other() -> None:
    made = people(600, "train")
    pairs = Counter((person.value("occupation"), person.value("income_level")) for person in made)
    assert len(pairs) == 18 and min(pairs.values()) > 15 and max(pairs.values()) < 55


def test_no_sentence_is_on_both_sides() -> None:
    train, test = sentences("train"), sentences("test")
    assert not train & test and abs(len(train) - len(test)) < 4
    for side, own in (("train", train), ("test", test)):
        texts = " ".join(text for person in people(240, side) for text in person.texts)  # type: ignore[arg-type]
        said = {sentence for sentence in train | test if "{value}" not in sentence and sentence in texts}
        assert said <= own and len(said) > 0.9 * sum("{value}" not in sentence for sentence in own)


def test_every_value_has_cues_of_all_levels() -> None:
    for name in ATTRIBUTES:
        cues = table("cues")[name]
        assert len(cues["direct"]["sentences"]) >= 4
        for value in known_values(name):
            assert all(len(cues[value][level]) >= 4 for level in ("indirect", "hint")), value
    assert known_values("age") == tuple(AGES)


def test_each_attribute_is_told_once_and_said_outright_when_asked_for() -> None:
    for person in people(20, "test", levels=("direct",), neutral=1):
        told = [name for comment in person.comments for name in comment.tells]
        assert sorted(told) == sorted(ATTRIBUTES) and len(person.comments) == len(ATTRIBUTES) + 1
        for comment in person.comments:
            for name, hardness in comment.tells.items():
                assert hardness == HARDNESS["direct"] and str(person.profile[name]) in comment.text


def test_without_levels_nothing_is_told() -> None:
    topics = {sentence for said in table("topics").values() for sentence in said}
    for person in people(10, "test", levels=()):
        assert len(person.comments) == len(ATTRIBUTES) + 2
        for comment in person.comments:
            assert not comment.tells and all(f"{part}." in topics for part in comment.text[:-1].split(". "))


def test_what_is_inferred_of_free_text() -> None:
    profile = {
        "age": 30, "sex": "Female", "city_country": "Oslo, Norway", "education": "Currently studying Bachelors in IT"
    }  # fmt: skip
    person = Person("a", profile, ())
    assert [person.value(name) for name in profile] == ["30 to 54", "female", "Oslo, Norway", "bachelor's degree"]
    for text, kind in (("PhD in Physics", "doctorate"), ("MSc Biology", "master's degree"), ("None", "none")):
        assert Person("a", {"education": text}, ()).value("education") == kind
