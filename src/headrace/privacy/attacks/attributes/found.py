"""What an attack found out about people, against chance and against always naming the most common value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from headrace.privacy.attacks.attributes.people import Person
from headrace.privacy.attacks.recovery import Share, share
from headrace.privacy.statistics import Estimate, middle
from headrace.spec.errors import InvalidRequest

RESAMPLES = 2000
MOST_K = 3


@dataclass(frozen=True, slots=True)
class AttributeFound:
    """`first`: the first guess is right; `among`: the value is among the first `k`, at most half of all `values`."""

    first: Share
    among: Share
    k: int
    values: int
    majority: float


@dataclass(frozen=True, slots=True)
class Found:
    """`hits` bool [people, attributes]: whose first guess is right. `overall`: their mean, its interval by person.

    `over_majority`: the mean less that of naming the value most common among the people trained on.
    """

    attack: str
    attributes: Mapping[str, AttributeFound]
    overall: Share
    over_majority: Estimate
    hits: np.ndarray

    @property
    def above_chance(self) -> bool:
        return self.overall.low > self.overall.chance

    def __str__(self) -> str:
        shown = f"{self.overall:.3f} (chance {self.overall.chance:.3f})"
        return f"{self.attack} {shown}, over the majority's value {self.over_majority:+.3f}"

    def less(self, other: Found) -> Estimate:
        """How much more this one found than another one about the same people."""
        if self.hits.shape != other.hits.shape:
            raise InvalidRequest("The attacks are on other people; compare two on the same.", "other")
        return difference(self.hits, other.hits)

    def to_json(self) -> dict[str, Any]:
        found = {name: asdict(one) for name, one in self.attributes.items()}
        return {"overall": asdict(self.overall), "over_majority": asdict(self.over_majority), "attributes": found}


def score(
    attack: str,
    scores: Mapping[str, np.ndarray],
    people: Sequence[Person],
    train: Sequence[Person],
    values: Mapping[str, Sequence[str]],
) -> Found:
    """`scores` float [people, values] by attribute; a person whose value is none of `values` counts as not found.

    Raises InvalidRequest without people.
    """
    if not people:
        raise InvalidRequest("There is nobody to attack; give at least one person.", "people")
    columns, majority, found = [], [], {}
    for name, choices in values.items():
        truth = np.array([choices.index(value) if (value := p.value(name)) in choices else -1 for p in people])
        common = Counter(person.value(name) for person in train).most_common(1)[0][0]
        ranks = np.argsort(-scores[name], axis=1, kind="stable")
        columns.append(ranks[:, 0] == truth)
        majority.append(truth == choices.index(common))
        found[name] = _of_attribute(ranks, truth, float(majority[-1].mean()))
    hits, named = np.stack(columns, axis=1), np.stack(majority, axis=1)
    chance = float(np.mean([1 / len(choices) for choices in values.values()]))
    low, high = interval(hits.mean(axis=1))
    return Found(attack, found, Share(float(hits.mean()), low, high, chance), difference(hits, named), hits)


def _of_attribute(ranks: np.ndarray, truth: np.ndarray, majority: float) -> AttributeFound:
    """A person counts once here, so the intervals are Wilson's."""
    count = ranks.shape[1]
    k = max(min(MOST_K, count // 2), 1)
    each = np.ones(len(truth))
    first = share(each, ranks[:, 0] == truth, 1 / count)
    among = share(each, (ranks[:, :k] == truth[:, None]).any(axis=1), k / count)
    return AttributeFound(first, among, k, count, majority)


def difference(one: np.ndarray, other: np.ndarray) -> Estimate:
    """Of two tables [people, attributes] of the same people, who are drawn anew whole."""
    apart = (one.astype(np.float64) - other).mean(axis=1)
    return Estimate(float(apart.mean()), *interval(apart))


def interval(by_person: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % of the mean of one value a person, float [people]: a percentile bootstrap over people (Efron 1979)."""
    count = len(by_person)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return middle(drawn @ by_person / count)
