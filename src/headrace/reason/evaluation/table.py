"""Rows of an iso-cost table, and which strategy beats its rival at equal tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from headrace.reason.evaluation.pooled import Outcome
from headrace.reason.evaluation.store import KINDS, Sample
from headrace.reason.intervals import (
    Interval,
    cluster_bootstrap,
    detectable_difference,
    paired_bootstrap,
    wilson,
)

Source: TypeAlias = Literal["pool", "live"]
Verdict: TypeAlias = Literal["better", "worse", "no difference shown", "unequal tokens"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
EQUAL = 1.02
"""Tokens count as equal up to this ratio."""


@dataclass(frozen=True, slots=True)
class Row:
    """One strategy within one budget.

    `outcomes`: for each question its outcomes, the first of which is the run as it was drawn. `work`: all tokens
    that the model computed, given and drawn. `seconds`: of wall time, shared among the runs in flight.
    """

    strategy: str
    budget: str
    source: Source
    oracle: bool
    outcomes: Mapping[str, Sequence[Outcome]] = field(repr=False)

    @property
    def values(self) -> dict[str, float]:
        """The share of right outcomes of each question."""
        return {item: sum(one.kind == "right" for one in found) / len(found) for item, found in self.outcomes.items()}

    @property
    def accuracy(self) -> float:
        return float(np.mean(list(self.values.values())))

    @property
    def interval(self) -> Interval:
        """Wilson's for one run a question, else a bootstrap over whole questions."""
        values = list(self.values.values())
        if all(len(found) == 1 for found in self.outcomes.values()):
            return wilson(sum(values), len(values))
        return cluster_bootstrap([[value] for value in values])

    def mean(self, name: str) -> float:
        """Of tokens, prefill, share or pages: over the outcomes of a question, then over questions."""
        return float(np.mean([np.mean([getattr(one, name) for one in found]) for found in self.outcomes.values()]))

    @property
    def kinds(self) -> dict[str, float]:
        """The share of each class."""
        shares: Counter[str] = Counter()
        for found in self.outcomes.values():
            for one in found:
                shares[one.kind] += 1 / len(found) / len(self.outcomes)  # type: ignore[assignment]
        return {kind: float(shares[kind]) for kind in KINDS}

    def as_json(self) -> dict[str, Any]:
        return {
            "strategy": self.strategy,
            "budget": self.budget,
            "source": self.source,
            "questions": len(self.outcomes),
            "runs_a_question": max(len(found) for found in self.outcomes.values()),
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "classes": self.kinds,
            "decode_tokens": self.mean("tokens"),
            "total_tokens": self.mean("tokens") + self.mean("prefill"),
            "seconds": self.mean("share"),
            "peak_pages": self.mean("pages"),
        }


def outcome_of(sample: Sample) -> Outcome:
    return Outcome(sample.kind, sample.tokens, sample.prefill, sample.share, sample.pages)


def dominated(rows: Sequence[Row]) -> dict[int, int]:
    """For each dominated row another one that is as right or more for as few decode tokens or fewer, and not equal."""
    found = {}
    points = [(row.accuracy, row.mean("tokens")) for row in rows]
    for index, (accuracy, tokens) in enumerate(points):
        better = [
            other
            for other, (right, cost) in enumerate(points)
            if right >= accuracy and cost <= tokens and (right, cost) != (accuracy, tokens)
        ]
        if better:
            found[index] = max(better, key=lambda other: points[other][0])
    return found


@dataclass(frozen=True, slots=True)
class Rival:
    """What a row is compared with. `tokens`: drawn a question, on average; `values`: each question's share right."""

    name: str
    tokens: float
    values: Mapping[str, float]


Against: TypeAlias = Callable[[Row], Rival | None]


@dataclass(frozen=True, slots=True)
class Comparison:
    """`strategy` within `budget` against `rival` on the same questions.

    `difference` of accuracy with its 95 % paired bootstrap interval; `p` of the sign-flip test on the questions'
    differences, `holm` the same corrected for all comparisons of the table. `detectable`: the smallest true
    difference that so many questions would find four times in five. `tokens`: drawn a question, on average.
    """

    strategy: str
    budget: str
    tokens: float
    rival: str
    rival_tokens: float
    difference: float
    interval: Interval
    p: float
    holm: float
    detectable: float | None
    verdict: Verdict

    def as_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        return told | {"interval": list(self.interval)}


def same_budget(rows: Sequence[Row], baseline: str) -> Against:
    """The baseline's row of the same budget."""
    bases = {row.budget: row for row in rows if row.strategy == baseline}

    def beside(row: Row) -> Rival | None:
        base = bases.get(row.budget)
        if base is None or row.strategy == baseline:
            return None
        return Rival(base.strategy, base.mean("tokens"), base.values)

    return beside


def comparisons(rows: Sequence[Row], against: Against) -> list[Comparison]:
    """Every row that has a rival against it, over the questions that both have."""
    pairs = [(row, rival) for row in rows if (rival := against(row)) is not None]
    found = [_compared(row, rival) for row, rival in pairs]
    corrected = holm_corrected([one.p for one in found])
    return [replace(one, holm=holm) for one, holm in zip(found, corrected, strict=True)]


def _compared(row: Row, rival: Rival) -> Comparison:
    mine, theirs = row.values, rival.values
    both = [item for item in mine if item in theirs]
    one, other = [mine[item] for item in both], [theirs[item] for item in both]
    difference, interval = paired_bootstrap(one, other)
    apart = np.subtract(one, other)
    detectable = detectable_difference(apart.tolist()) if len(both) > 1 else None
    tokens, p = row.mean("tokens"), sign_flip(apart)
    return Comparison(
        row.strategy,
        row.budget,
        tokens,
        rival.name,
        rival.tokens,
        difference,
        interval,
        p,
        p,
        detectable,
        _verdict(interval, tokens, rival.tokens),
    )


def _verdict(interval: Interval, tokens: float, rival: float) -> Verdict:
    """What drew more tokens cannot be called better, and what drew fewer cannot be called worse."""
    if interval[0] > 0:
        return "better" if tokens <= EQUAL * rival else "unequal tokens"
    if interval[1] < 0:
        return "worse" if rival <= EQUAL * tokens else "unequal tokens"
    return "no difference shown"


def sign_flip(differences: np.ndarray, flips: int = 20_000, seed: int = 0) -> float:
    """The two-sided p-value that paired differences, one a question, are as likely to have the other sign.

    A randomisation test on their mean (Fisher 1935); the smallest value it can give is 1 / (flips + 1).
    """
    moved = differences[differences != 0]
    signs = np.random.default_rng(seed).integers(0, 2, (flips, len(moved)), dtype=np.int8)
    sums = 2 * (signs @ moved) - moved.sum()
    reached = np.abs(sums) >= abs(moved.sum()) - 1e-9
    return (1 + int(reached.sum())) / (1 + flips)


def holm_corrected(tests: Sequence[float]) -> list[float]:
    """p-values corrected for all of them together (Holm 1979)."""
    found, least = [0.0] * len(tests), 0.0
    for rank, index in enumerate(sorted(range(len(tests)), key=lambda place: tests[place])):
        least = max(least, min(tests[index] * (len(tests) - rank), 1.0))
        found[index] = least
    return found
