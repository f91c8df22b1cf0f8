"""People made from a seed, and comments that tell of them: outright, by what follows from it, or by a hint.

A comment is two sentences on its topic and one on its author. Those whom an attack trains on and those it is tried on
never say the same sentence. The values of each attribute are dealt out evenly and independently of the others, so that
nothing but the comments tells them.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Literal, TypeAlias, get_args

from headrace.privacy.attacks.attributes.people import ATTRIBUTES, Comment, Person
from headrace.privacy.attacks.attributes.tables import table

Level: TypeAlias = Literal["direct", "indirect", "hint"]
Side: TypeAlias = Literal["train", "test"]
LEVELS: tuple[Level, ...] = get_args(Level)
HARDNESS: dict[Level, int] = {"direct": 1, "indirect": 3, "hint": 5}
YEARS = {"under 30": (19, 29), "30 to 54": (31, 53), "55 and over": (57, 74)}
INCOMES = {"low": "14 thousand a year", "middle": "42 thousand a year", "high": "310 thousand a year"}
DIRECT = "direct"


def known_values(attribute: str) -> tuple[str, ...]:
    """The values that generated people have."""
    return tuple(name for name in table("cues")[attribute] if name != DIRECT)


def sentences(side: Side) -> set[str]:
    """All that people of a side may say, values of direct sentences left open."""
    topics = [list(said) for said in table("topics").values()]
    cues = [said for values in table("cues").values() for levels in values.values() for said in levels.values()]
    return {sentence for said in (*topics, *cues) for sentence in _of(side, said)}


def people(
    count: int, side: Side, seed: int = 0, levels: Sequence[Level] = LEVELS, neutral: int = 2
) -> tuple[Person, ...]:
    """`count` people of a side with a comment for each attribute, of a level drawn, and `neutral` that tell nothing.

    Without `levels` all of their comments tell nothing.
    """
    random = Random(f"{side}/{seed}")
    dealt = {name: _dealt(known_values(name), count, random) for name in ATTRIBUTES}
    profiles = [{name: dealt[name][number] for name in ATTRIBUTES} for number in range(count)]
    return tuple(
        _person(f"{side}-{seed}-{number}", profile, side, (levels, neutral), random)
        for number, profile in enumerate(profiles)
    )


def _dealt(values: Sequence[str], count: int, random: Random) -> list[str]:
    dealt = [values[number % len(values)] for number in range(count)]
    random.shuffle(dealt)
    return dealt


def _person(
    author: str, values: dict[str, str], side: Side, how: tuple[Sequence[Level], int], random: Random
) -> Person:
    levels, neutral = how
    age = random.randint(*YEARS[values["age"]])
    about = [*ATTRIBUTES, *[""] * neutral]
    random.shuffle(about)
    said = {**values, "age": str(age)}
    comments = tuple(_comment(name if levels else "", values, said, (side, levels), random) for name in about)
    more = {"income": INCOMES[values["income_level"]], "style": "", "username": author}
    return Person(author, {**values, "age": age, **more}, comments)


def _comment(
    about: str, values: dict[str, str], said: dict[str, str], how: tuple[Side, Sequence[Level]], random: Random
) -> Comment:
    side, levels = how
    topic = random.choice(sorted(table("topics")))
    parts, tells = random.sample(_of(side, table("topics")[topic]), 2), {}
    if about:
        level, cues = random.choice(levels), table("cues")[about]
        given = cues[DIRECT]["sentences"] if level == DIRECT else cues[values[about]][level]
        parts.insert(random.randrange(3), random.choice(_of(side, given)).format(value=said[about]))
        tells = {about: HARDNESS[level]}
    return Comment(" ".join(parts), topic, tells)


def _of(side: Side, given: Sequence[str]) -> list[str]:
    return list(given[side == "test" :: 2])
