"""Rows of an iso-cost table, and which strategy beats which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from headrace.reason.evaluation.pooled import Outcome
from headrace.reason.evaluation.store import KINDS, Sample
from headrace.reason.intervals import (
    Interval,
    cluster_bootstrap,
    detectable_difference,
    mcnemar,
    paired_bootstrap,
    wilson,
)

Source: TypeAlias = Literal["pool", "live"]
Verdict: TypeAlias = Literal["better", "worse", "no difference shown"]


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
class Comparison:
    """`strategy` against `baseline` on the same questions within the same budget.

    `difference` of accuracy with its 95 % paired bootstrap interval; `p` of McNemar's exact test on the runs as
    they were drawn, `holm` the same corrected for all comparisons of the table. `detectable`: the smallest true
    difference that so many questions would find four times in five.
    """

    strategy: str
    baseline: str
    budget: str
    difference: float
    interval: Interval
    p: float
    holm: float
    detectable: float | None
    verdict: Verdict

    def as_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        return told | {"interval": list(self.interval)}


def comparisons(rows: Sequence[Row], baseline: str) -> list[Comparison]:
    """Every row against the baseline's row of the same budget, over the questions that both have."""
    bases = {row.budget: row for row in rows if row.strategy == baseline}
    pairs = [(row, bases[row.budget]) for row in rows if row.strategy != baseline and row.budget in bases]
    tests = [_mcnemar(row, base) for row, base in pairs]
    return [
        _compared(row, base, p, holm) for (row, base), p, holm in zip(pairs, tests, holm_corrected(tests), strict=True)
    ]


def _compared(row: Row, base: Row, p: float, holm: float) -> Comparison:
    one, other = _paired(row, base)
    difference, interval = paired_bootstrap(one, other)
    detectable = detectable_difference([a - b for a, b in zip(one, other, strict=True)]) if len(one) > 1 else None
    verdict: Verdict = "better" if interval[0] > 0 else "worse" if interval[1] < 0 else "no difference shown"
    return Comparison(row.strategy, base.strategy, row.budget, difference, interval, p, holm, detectable, verdict)


def _paired(row: Row, base: Row) -> tuple[list[float], list[float]]:
    mine, theirs = row.values, base.values
    both = [item for item in mine if item in theirs]
    return [mine[item] for item in both], [theirs[item] for item in both]


def _mcnemar(row: Row, base: Row) -> float:
    both = [item for item in row.outcomes if item in base.outcomes]
    first = [tuple(one.outcomes[item][0].kind == "right" for one in (row, base)) for item in both]
    return mcnemar(first.count((True, False)), first.count((False, True)))


def holm_corrected(tests: Sequence[float]) -> list[float]:
    """p-values corrected for all of them together (Holm 1979)."""
    found, least = [0.0] * len(tests), 0.0
    for rank, index in enumerate(sorted(range(len(tests)), key=lambda place: tests[place])):
        least = max(least, min(tests[index] * (len(tests) - rank), 1.0))
        found[index] = least
    return found
