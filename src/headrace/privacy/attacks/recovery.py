"""What an attack recovered, against chance, and what it cost; the one result of every attack."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import NormalDist
from typing import Any, Literal, TypeAlias

import numpy as np

from headrace.privacy.statistics import Estimate
from headrace.spec.errors import HeadraceError, InvalidRequest

UNKNOWN = -1
"""In a token map: the attack names no token for this id."""


ScoredBy: TypeAlias = Literal["key", "confidence"]
"""What a share counts: what is right by the true key, or, without that, what the attack is sure of by itself."""


UNJUDGED = (
    "Without the key an attack tells how sure it is and not what it recovered, which a threshold is of;"
    " give --key, or leave --threshold out."
)


class RecoveryOverThreshold(HeadraceError):
    """An attack recovered more than its caller allows."""


@dataclass(frozen=True, slots=True)
class Share(Estimate):
    """A share recovered, its 95 % interval (Wilson 1927), and what a guess at random recovers."""

    chance: float

    def __str__(self) -> str:
        return f"{self.value:.2%} ({self.low:.2%} to {self.high:.2%}; chance {self.chance:.2g})"

    @property
    def contains_chance(self) -> bool:
        return self.low <= self.chance <= self.high


def share(weights: np.ndarray, found: np.ndarray, chance: float) -> Share:
    """The share of the weight that was found: float [n], bool [n]. Raises InvalidRequest without weight.

    Things of unequal weight count as their effective number, (sum w)^2 / sum w^2 (Kish 1965): the tokens of a
    text are recovered a type at a time.
    """
    total = float(weights.sum())
    if not total > 0:
        raise InvalidRequest("Nothing is there to be recovered; give ids that occur.", "weights")
    trials = total * total / float(weights @ weights)
    return wilson(min(float(weights @ found) / total, 1.0), trials, chance)


def wilson(value: float, trials: float, chance: float) -> Share:
    """A share of so many independent trials."""
    z = NormalDist().inv_cdf(0.975)
    centre = (value + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(value * (1 - value) / trials + z * z / (4 * trials * trials))
    # Rounding must not push a bound past the value it bounds.
    return Share(value, max(min(centre - half, value), 0.0), min(max(centre + half, value), 1.0), chance)


@dataclass(frozen=True, slots=True)
class Cost:
    """`seconds` of processor time, `bytes` the attacker reads, `tokens` of the victim's traffic it needs."""

    seconds: float
    bytes: int
    tokens: int = 0

    def __str__(self) -> str:
        needs = f", {self.tokens:,} tokens of traffic" if self.tokens else ""
        return f"{self.seconds:.3g} s of processor time, {self.bytes / 1e6:.3g} MB read{needs}"


class Clock:
    """Processor time of this process since it was made."""

    def __init__(self) -> None:
        self._start = time.process_time()

    def cost(self, *read: np.ndarray, tokens: int = 0) -> Cost:
        return Cost(time.process_time() - self._start, sum(array.nbytes for array in read), tokens)


@dataclass(frozen=True, slots=True)
class Recovery:
    """`types`: of the distinct things attacked; `mass`: of their occurrences in the victim's traffic.

    `scored`: how many distinct things the shares are of. `details`: figures of this attack alone.
    """

    attack: str
    types: Share
    mass: Share
    scored: int
    cost: Cost
    details: Mapping[str, Any] = field(default_factory=dict)
    scored_by: ScoredBy = "key"

    def __str__(self) -> str:
        sure = "" if self.scored_by == "key" else ", by its own confidence"
        return f"{self.attack}{sure}: types {self.types}, token mass {self.mass}, of {self.scored:,}; {self.cost}"

    @property
    def worst(self) -> float:
        return max(self.types.value, self.mass.value)

    def check(self, threshold: float) -> None:
        """Raises RecoveryOverThreshold where more than this share of types or of token mass was recovered.

        Raises InvalidRequest for what no key scored: an attack can be sure and wrong, or unsure and right.
        """
        if self.scored_by != "key":
            raise InvalidRequest(UNJUDGED, "threshold")
        if not self.worst <= threshold:  # a threshold that is no number lets nothing pass
            raise RecoveryOverThreshold(
                f"The attack {self.attack} recovered {self.worst:.2%}, over the threshold of {threshold:.2%}; "
                "choose a stronger profile or a higher --threshold."
            )

    def to_json(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Recovery:
        types, mass, cost = Share(**value["types"]), Share(**value["mass"]), Cost(**value["cost"])
        by = value.get("scored_by", "key")
        return cls(value["attack"], types, mass, value["scored"], cost, value["details"], by)


def score_map(
    attack: str,
    guess: np.ndarray,
    truth: np.ndarray,
    cost: Cost,
    counts: np.ndarray | None = None,
    held_out: np.ndarray | None = None,
    details: Mapping[str, Any] | None = None,
) -> Recovery:
    """A guessed token map against the true one: int [vocab] each, from id on the wire to token, UNKNOWN allowed.

    With `counts` [vocab], occurrences on the wire, only ids that occur are scored, else all alike; `held_out`
    bool [vocab] leaves out what the attacker was told. Chance is a guess among the whole vocabulary.
    Raises InvalidRequest where nothing is left to score.
    """
    weights = np.ones(len(truth)) if counts is None else counts.astype(np.float64)
    scored = weights > 0 if held_out is None else (weights > 0) & held_out
    found, chance = (guess == truth)[scored], 1 / len(truth)
    types = share(np.ones(int(scored.sum())), found, chance)
    mass = share(weights[scored], found, chance)
    return Recovery(attack, types, mass, int(scored.sum()), cost, dict(details or {}))


def score_positions(
    attack: str,
    guess: np.ndarray,
    truth: np.ndarray,
    vocab: int,
    cost: Cost,
    details: Mapping[str, Any] | None = None,
) -> Recovery:
    """Tokens named position by position, int [tokens] each: mass is of the positions, types weigh each token once."""
    found, counts = guess == truth, np.bincount(truth, minlength=vocab)
    types = share(1.0 / counts[truth], found, 1 / vocab)
    return Recovery(
        attack, types, share(np.ones(len(truth)), found, 1 / vocab), len(np.unique(truth)), cost, dict(details or {})
    )


def score_confidence(
    attack: str,
    sure: np.ndarray,
    chance: float,
    cost: Cost,
    weights: np.ndarray | None = None,
    details: Mapping[str, Any] | None = None,
) -> Recovery:
    """What an attack is sure of without a key to check it by: bool [n], occurrences float [n] where they differ."""
    types = share(np.ones(len(sure)), sure, chance)
    mass = types if weights is None else share(weights, sure, chance)
    return Recovery(attack, types, mass, len(sure), cost, dict(details or {}), "confidence")
