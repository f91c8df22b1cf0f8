"""How a model's scores fall as tasks grow longer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from headrace.evidence.procbench.metrics import Score
from headrace.reason.intervals import Interval, bootstrap


@dataclass(frozen=True, slots=True)
class Curve:
    """`scores[length][unit]`: the same units stand at every length, so that they are compared with themselves."""

    model: str
    scores: Mapping[int, Sequence[Score]]

    def slope(self, most: int | None = None) -> tuple[float, Interval]:
        """Change of prefix accuracy with each doubling of the length, up to `most`; 95 % over units."""
        lengths = [length for length in self.scores if most is None or length <= most]
        doublings = [math.log2(length) for length in lengths]
        middle = fmean(doublings)
        spread = math.fsum((place - middle) ** 2 for place in doublings)
        units = zip(*(self.scores[length] for length in lengths), strict=True)
        slopes = [
            math.fsum((place - middle) * one.prefix_accuracy for place, one in zip(doublings, unit, strict=True))
            / spread
            for unit in units
        ]
        return fmean(slopes), bootstrap(slopes)

    def prefix(self) -> list[float]:
        return [fmean(one.prefix_accuracy for one in scores) for scores in self.scores.values()]

    def whole(self) -> list[float]:
        return [fmean(one.sequential_match for one in scores) for scores in self.scores.values()]

    def last(self) -> list[float]:
        return [fmean(one.final_match for one in scores) for scores in self.scores.values()]

    def __str__(self) -> str:
        count = len(next(iter(self.scores.values())))
        rows = zip(self.scores, self.prefix(), self.whole(), self.last(), strict=True)
        shown = "; ".join(f"{n}: {prefix:.3f}, {whole:.2f}, {last:.2f}" for n, prefix, whole, last in rows)
        return f"{self.model}, {count} tasks a length: prefix accuracy, whole, last state at {shown}"
