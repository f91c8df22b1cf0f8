"""P8: a larger budget is not worse. On a synthetic set, no strategy loses accuracy that the questions can show."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from headrace.evidence.scripted import scripted_engine
from headrace.reason.choose import tally
from headrace.reason.evaluation.filling import seed_of
from headrace.reason.evaluation.table import holm_corrected
from headrace.reason.intervals import detectable_difference, mcnemar
from headrace.reason.solve import Order, solve
from headrace.spec.budget import Budget
from headrace.spec.sampling import Sampling
from reason.planted import ATTEMPT, chances, gold, scorer, sums
from reason.toy import usable

WORTH = (0.4, 1.3, 2.6, 5.2, 10.4)
"""Budgets in attempts; none is a whole number of them, so that every one cuts something."""
UNSURE = 0.05


@dataclass(frozen=True)
class Drop:
    """From one budget to a larger one: questions that only the larger, and only the smaller one answered right."""

    strategy: str
    budgets: tuple[float, float]
    gained: int
    lost: int

    @property
    def p(self) -> float:
        """One-sided: how likely so great a loss is where none is expected."""
        return mcnemar(self.gained, self.lost) / 2 if self.lost > self.gained else 1.0


def measured(strategy: str, count: int, worth: Sequence[float] = WORTH, noise: float = 1.0) -> np.ndarray:
    """bool [budgets, questions]: right or not, from the same seed at every budget. `noise`: of the scorer."""
    tasks = sums(count)

    async def ask() -> list[list[bool]]:
        room = asyncio.Semaphore(16)

        async def right(number: int, tokens: int) -> bool:
            how = Order(strategy, Budget(tokens=tokens), scorer(noise), seed_of(8, str(number), 0), Sampling(1.0))
            async with room:
                found = await solve(engine, tasks[number], how)
            return found.answer == gold(tasks[number])

        return [
            await asyncio.gather(*(right(number, int(share * ATTEMPT)) for number in range(count))) for share in worth
        ]

    with scripted_engine(chances, pages=4000) as engine:
        return np.array(asyncio.run(ask()))


def drops(strategy: str, right: np.ndarray, worth: Sequence[float] = WORTH) -> list[Drop]:
    """One for every pair of budgets."""
    return [
        Drop(strategy, (worth[i], worth[j]), int((right[j] & ~right[i]).sum()), int((right[i] & ~right[j]).sum()))
        for i, j in combinations(range(len(worth)), 2)
    ]


def violations(found: Sequence[Drop]) -> list[Drop]:
    """Losses that chance does not explain, corrected for all pairs of budgets of all strategies (Holm)."""
    corrected = holm_corrected([drop.p for drop in found])
    return [drop for drop, p in zip(found, corrected, strict=True) if p < UNSURE]


@pytest.mark.parametrize("count", [8, pytest.param(200, marks=pytest.mark.prove)])
def test_a_larger_budget_is_not_worse(count: int, figures: dict[str, Any]) -> None:
    everyone = sorted(usable())
    right = {name: measured(name, count) for name in everyone}
    found = [drop for name in everyone for drop in drops(name, right[name])]
    assert violations(found) == []
    for name in everyone:
        figures[name] = [round(float(share), 3) for share in right[name].mean(axis=1)]
    changes = right["self_consistency"][-1].astype(float) - right["self_consistency"][1]
    figures |= {"questions": count, "budgets": list(WORTH), "detectable": round(detectable_difference(changes), 3)}
    rises = [name for name in everyone if right[name][-1].mean() >= right[name][0].mean() + 0.2]
    assert len(rises) >= len(everyone) // 2, "on a set where nothing rises, that nothing falls says little"


def worst(candidates, rule, space):
    """Mutant: of the finished ones that which the scorer likes least."""
    pool = [c for c in candidates if c.finished] or candidates
    return min(pool, key=lambda c: c.score or 0.0, default=None)


def cut_ones_vote(candidates, rule, space):
    """Mutant: a number that a cut attempt happened to end with counts as much as an answer."""
    pool = [c for c in candidates if c.answer is not None] or candidates
    return pool[tally(pool, False, space).answer] if pool and pool[0].answer is not None else next(iter(pool), None)


@pytest.mark.parametrize(
    ("mutant", "strategy", "worth"),
    [
        (worst, "best_of_n(n=8)", (1.3, 10.4)),
        (cut_ones_vote, "deepconf(n=16, warm=8, every=4, window=4)", (8.5, 10.4)),
    ],
)
def test_the_check_sees_a_best_that_is_not_the_best(
    mutant, strategy: str, worth: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert violations(drops(strategy, measured(strategy, 40, worth), worth)) == []
    monkeypatch.setattr("headrace.reason.run.best_of", mutant)
    assert violations(drops(strategy, measured(strategy, 40, worth), worth)) != []


def test_the_check_sees_a_scorer_that_misleads() -> None:
    """With a scorer that is often wrong, more attempts after a greedy one that is right are worse: no best can help."""
    found = drops("adaptive_best_of_n", measured("adaptive_best_of_n", 40, noise=4.0))
    assert violations(found) != []
