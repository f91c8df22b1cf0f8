"""Strategies put to questions with known answers on one engine, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from headrace.engine.engine import Engine
from headrace.evidence.answered import Answered
from headrace.reason.intervals import paired_bootstrap, wilson
from headrace.reason.solve import Order, solve
from headrace.reason.tasks.posed import Posed
from headrace.spec.budget import Budget
from headrace.spec.sampling import Sampling

AT_ONCE = 6


@dataclass(frozen=True, slots=True)
class Asked:
    """How one question went: `prompt` and `drawn` tokens, cached ones included, and the prompts that were sent."""

    right: bool
    answer: str | None
    prompt: int
    drawn: int
    calls: int

    @property
    def tokens(self) -> int:
        return self.prompt + self.drawn


def ask(
    engine: Engine,
    posed: Sequence[Posed],
    strategy: str,
    temperature: float = 0.7,
    budgets: Sequence[Budget] | None = None,
    answered: Answered | None = None,
    label: str = "",
) -> list[Asked]:
    """The strategy's answers, seeded by the question's place; `budgets` one a question.

    What `answered` has under this label, strategy, temperature and place is not asked again.
    """
    bounds, known = budgets or [Budget()] * len(posed), answered or Answered()

    def order(place: int) -> Order:
        return Order(strategy, bounds[place], seed=place, sampling=Sampling(temperature=temperature))

    return asyncio.run(_ask(engine, posed, order, known, (label, strategy, temperature)))


async def _ask(
    engine: Engine, posed: Sequence[Posed], order: Callable[[int], Order], answered: Answered, key: tuple[object, ...]
) -> list[Asked]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(place: int) -> Asked:
        if (known := answered.get(*key, place)) is not None:
            return Asked(**known)
        async with gate:
            made = await _asked(engine, posed[place], order(place))
        answered.add(asdict(made), *key, place)
        return made

    return list(await asyncio.gather(*(one(place) for place in range(len(posed)))))


async def _asked(engine: Engine, item: Posed, order: Order) -> Asked:
    found = await solve(engine, item.task, order)
    calls = sum(1 for _ in found.trace.of("open"))
    return Asked(item.right(found.answer), found.answer, found.usage["prompt"], found.usage["completion"], calls)


def share(found: Sequence[Asked]) -> str:
    """Accuracy with its Wilson interval, and the mean cost."""
    right = sum(asked.right for asked in found)
    low, high = wilson(right, len(found))
    cost = fmean(asked.tokens for asked in found)
    return f"{right / len(found):.3f} [{low:.3f}, {high:.3f}] at {cost:.0f} tokens"


def gain(one: Sequence[Asked], other: Sequence[Asked]) -> tuple[float, tuple[float, float]]:
    """The paired difference of accuracy, one minus other."""
    return paired_bootstrap([float(asked.right) for asked in one], [float(asked.right) for asked in other])


def signed(difference: tuple[float, tuple[float, float]]) -> str:
    mean, (low, high) = difference
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
