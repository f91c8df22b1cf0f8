"""People, what is known of them, and what they posted, in the terms of SynthPAI (arXiv 2406.07217)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ATTRIBUTES = (
    "age", "sex", "city_country", "birth_city_country", "education", "occupation", "income_level",
    "relationship_status",
)  # fmt: skip
AGES = {"under 30": (0, 29), "30 to 54": (30, 54), "55 and over": (55, 200)}
"""Bands of age, first and last year: what is inferred is the band."""
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
DEGREES = {
    "doctorate": r"ph\.?d|doctor",
    "master's degree": r"\bm(?:sc|ba)\b|master",
    "bachelor's degree": r"bachelor|undergraduate",
    "high school diploma": r"high school|secondary",
}


@dataclass(frozen=True, slots=True)
class Comment:
    """`topic`: its thread. `tells`: what it is labelled to tell, attribute to hardness: 1, said outright, to 5."""

    text: str
    topic: str = ""
    tells: Mapping[str, int] = field(default_factory=dict)

    @property
    def sentences(self) -> list[str]:
        return SENTENCE_END.split(self.text)


@dataclass(frozen=True, slots=True)
class Person:
    """`profile` has the published fields: all ATTRIBUTES, `age` in years, and more that nothing here infers."""

    author: str
    profile: Mapping[str, Any]
    comments: tuple[Comment, ...]

    def value(self, attribute: str) -> str:
        """What is to be inferred: the band of an age, the kind of a degree, else the field as it stands."""
        raw = self.profile[attribute]
        if attribute == "age":
            return next(band for band, (first, last) in AGES.items() if first <= raw <= last)
        if attribute == "education":
            found = (kind for kind, pattern in DEGREES.items() if re.search(pattern, raw, re.IGNORECASE))
            return next(found, raw.lower())
        return raw if attribute.endswith("country") else raw.lower()

    @property
    def texts(self) -> list[str]:
        return [comment.text for comment in self.comments]


def values_of(people: Sequence[Person]) -> dict[str, tuple[str, ...]]:
    """The values that occur, by attribute, in alphabetical order: what an attack chooses among."""
    return {name: tuple(sorted({person.value(name) for person in people})) for name in ATTRIBUTES}
