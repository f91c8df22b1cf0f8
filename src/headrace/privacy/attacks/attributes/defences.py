"""Two defences on a text before it is posted, by rules and common lists; neither has seen how the comments are made.

`redacted` blanks what such tools look for: names, places, numbers, occupations. `generalised` says it in general words
instead, and where a sentence tells of a life in the first person, it puts another that tells of nobody's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

from headrace.privacy.attacks.attributes.people import SENTENCE_END, Person
from headrace.privacy.attacks.attributes.tables import table

NUMBER_WORDS = (
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion"
).split()
BLANKS = {"place": "[place]", "name": "[name]", "occupation": "[occupation]", "number": "[number]"}
GENERAL = {"place": "somewhere", "name": "somebody", "occupation": "worker", "number": "some"}
FIRST_PERSON = re.compile(r"\bI\b|\b(?:me|my|mine|myself|we|us|our|ours)\b", re.IGNORECASE)


def redacted(text: str) -> str:
    """The text with a mark in place of each name, place, number and occupation on the lists."""
    return _replaced(text, BLANKS)


def generalised(text: str) -> str:
    """The text in general words, without sentences in the first person that tell of a life."""
    said: list[str] = []
    for sentence in SENTENCE_END.split(text):
        fresh = _of_nobody(sentence)
        if fresh not in said:
            said.append(fresh)
    return _replaced(" ".join(said), GENERAL)


DEFENCES: dict[str, Callable[[str], str]] = {"redaction": redacted, "generalisation": generalised}


def defended(people: Sequence[Person], defence: Callable[[str], str]) -> tuple[Person, ...]:
    """The same people, each of whose comments has gone through the defence."""
    return tuple(
        replace(person, comments=tuple(replace(comment, text=defence(comment.text)) for comment in person.comments))
        for person in people
    )


def _replaced(text: str, by: dict[str, str]) -> str:
    for kind, pattern in _patterns().items():
        text = pattern.sub(by[kind], text)
    return text


def _of_nobody(sentence: str) -> str:
    if FIRST_PERSON.search(sentence):
        words = set(re.findall(r"[a-z]+(?:['-][a-z]+)*", sentence.lower()))
        for said, instead in _lives():
            if words & said:
                return instead
    return sentence


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    """Places before names, which some are, too. Proper nouns count only where they are written as such."""
    lists = table("lists")
    places = [*lists["phrases"], *lists["places"].split()]
    numbers = rf"\b(?:\d[\d.,:]*(?:st|nd|rd|th|s)?|(?:{'|'.join(NUMBER_WORDS)})(?:-\w+)?)\b"
    return {
        "place": re.compile(rf"\b(?:{'|'.join(map(str.title, places))})(?:'s)?\b"),
        "name": re.compile(rf"\b(?:{'|'.join(map(str.title, lists['names'].split()))})(?:'s)?\b"),
        "occupation": re.compile(rf"\b(?:{'|'.join(lists['occupations'].split())})(?:s|'s)?\b", re.IGNORECASE),
        "number": re.compile(numbers, re.IGNORECASE),
    }


@cache
def _lives() -> tuple[tuple[frozenset[str], str], ...]:
    return tuple((frozenset(theme["words"].split()), theme["instead"]) for theme in table("lists")["life"].values())
