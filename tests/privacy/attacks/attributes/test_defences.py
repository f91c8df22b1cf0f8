"""Defences take what their lists name, leave the rest, and do not know how comments were made."""

from __future__ import annotations

import pytest

from headrace.privacy.attacks.attributes.defences import defended, generalised, redacted
from headrace.privacy.attacks.attributes.generator import people
from headrace.privacy.attacks.attributes.tables import table


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("I live in Dublin, Ireland now.", "I live in [place], [place] now."),
        ("Greetings from South Korea's coast.", "Greetings from [place] coast."),
        ("Two nurses told Emma, an Irish teacher.", "[number] [occupation] told [name], an [place] [occupation]."),
        ("I am 34 years old and paid 1,200 for it.", "I am [number] years old and paid [number] for it."),
        ("My 21st birthday, at twenty-five past.", "My [number] birthday, at [number] past."),
        ("The polish on my nails and a jordan almond.", "The polish on my nails and a jordan almond."),
        ("Nigeria is not Niger.", "[place] is not [place]."),
        ("Nothing to see here.", "Nothing to see here."),
    ],
)
def test_redaction_marks_what_is_on_the_lists(text: str, left: str) -> None:
    assert redacted(text) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("My wife snores. The coffee is good.", "That is different in every family. The coffee is good."),
        ("I work nights! I hate my boss.", "That depends on the work somebody does."),
        ("A wife snores.", "A wife snores."),
        ("The ferry left Lima at six.", "The ferry left somewhere at some."),
        ("I like tea.", "I like tea."),
    ],
)
def test_generalisation_speaks_of_nobody(text: str, left: str) -> None:
    assert generalised(text) == left


def test_what_tells_nothing_is_mostly_left_alone() -> None:
    sentences = [sentence for said in table("topics").values() for sentence in said]
    for defence in (redacted, generalised):
        assert sum(defence(sentence) == sentence for sentence in sentences) >= 0.9 * len(sentences)


def test_the_lists_are_not_the_generator_s() -> None:
    """They know thousands of things it never says, and miss much of what it says."""
    made = people(40, "test", levels=("indirect", "hint"))
    texts = [text for person in made for text in person.texts]
    kept = sum(redacted(text) == text for text in texts)
    assert kept > 0.6 * len(texts)
    cues = str(table("cues")).lower()
    assert sum(word in cues for word in table("lists")["places"].split()) < 50


def test_people_keep_their_profiles_and_labels() -> None:
    made = people(3, "test", levels=("direct",))
    for before, after in zip(made, defended(made, redacted), strict=True):
        assert before.profile == after.profile and before.author == after.author
        assert [c.tells for c in before.comments] == [c.tells for c in after.comments]
        assert sum(a != b for a, b in zip(before.texts, after.texts, strict=True)) >= 4
