"""Several strategies on the same questions under the same token budgets: what each was right about, and spent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from headrace.engine.surface import Surface
from headrace.model.catalogue import cache_folder
from headrace.reason.evaluate import Design, evaluate, settings
from headrace.reason.evaluation.filling import How
from headrace.reason.evaluation.store import Sample, Store, budget_key
from headrace.reason.strategy import parse
from headrace.reason.tasks.item import Item
from headrace.spec.budget import Budget


@dataclass(frozen=True, slots=True)
class Contest:
    """`families`: questions by the name of their kind. `methods`: strategies by name. `budgets` in drawn tokens."""

    model: str
    families: Mapping[str, Sequence[Item]]
    methods: Mapping[str, str]
    budgets: Sequence[int]
    how: How

    @property
    def items(self) -> list[Item]:
        return [item for found in self.families.values() for item in found]

    @property
    def design(self) -> Design:
        return Design(self.items, tuple(self.methods.values()), [Budget(tokens=count) for count in self.budgets])

    def held(self, engine: Surface, path: Path | None = None) -> Outcome:
        """Runs what `path` does not have yet; a store that was there before is gone on with."""
        belongs = settings(engine, " + ".join(self.families), self.how, self.design)
        with Store(path, belongs) as store:
            figures = asyncio.run(evaluate(engine, self.design, self.how, store))
            return Outcome(self, figures, list(store.samples.values()))

    def part(self, each: int, budgets: Sequence[int], **how: Any) -> Contest:
        """The first questions of each family."""
        families = {name: found[:each] for name, found in self.families.items()}
        return replace(self, families=families, budgets=budgets, how=replace(self.how, **how))


@dataclass(frozen=True, slots=True)
class Outcome:
    """`figures` as `evaluate` gives them."""

    contest: Contest
    figures: dict[str, Any]
    samples: list[Sample] = field(repr=False)

    def of(self, method: str, budget: int) -> list[Sample]:
        """One sample a question, in the questions' order."""
        key = str(parse(self.contest.methods[method])), budget_key(Budget(tokens=budget))
        found = {sample.item: sample for sample in self.samples if (sample.strategy, sample.budget) == key}
        return [found[item.id] for item in self.contest.items]

    def spent(self, method: str, budget: int) -> float:
        """Mean drawn tokens a question over the budget."""
        return fmean(sample.tokens for sample in self.of(method, budget)) / budget

    def right(self, method: str, budget: int) -> list[float]:
        return [float(sample.kind == "right") for sample in self.of(method, budget)]

    def by_family(self, method: str, budget: int) -> dict[str, float]:
        right, start, found = self.right(method, budget), 0, {}
        for name, items in self.contest.families.items():
            found[name] = fmean(right[start : start + len(items)])
            start += len(items)
        return found

    def differing(self, other: Outcome) -> int:
        """How many of the other's samples are not the same here in all but their wall time."""
        mine = {sample.key: replace(sample, share=0.0) for sample in self.samples}
        return sum(mine.get(sample.key) != replace(sample, share=0.0) for sample in other.samples)


def contest_store(claim: str, name: str) -> Path:
    """Where a claim keeps its samples. Settings that differ are refused; code that differs shows in a re-run."""
    return cache_folder() / "evidence" / f"{claim}-{name}.jsonl"
