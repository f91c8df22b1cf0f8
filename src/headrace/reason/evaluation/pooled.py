"""Strategies over independent attempts, recomputed from one stored pool of them: any k, any budget."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headrace.reason.agreement import betastop
from headrace.reason.choose import Best, groups
from headrace.reason.evaluation.store import Kind, Sample, Scoring
from headrace.reason.strategy import Plan, Step
from headrace.reason.votes import vote
from headrace.spec.budget import Budget
from headrace.spec.errors import InvalidRequest
from headrace.spec.model import PAGE_TOKENS
from headrace.spec.reasoning import AnswerSpace

ATTEMPT = "self_consistency(n=1)"
"""What makes one attempt of a pool, whose text no scorer changes."""

ORDERS = 32
"""Random orders of a pool over which a strategy's outcome is averaged; the first is the order of drawing."""

POOLED = frozenset(("single", "self_consistency", "best_of_n", "weighted_vote", "adaptive_consistency"))


@dataclass(frozen=True, slots=True)
class Question:
    """The pool of one question. `leads`: for each sample the first one with an equal answer, None unparsed.

    `scorings`: what a scorer made of each sample; none where there is no scorer. `sound`: whether its 1 is a proof.
    """

    item: str
    samples: tuple[Sample, ...]
    leads: tuple[int | None, ...]
    scorings: tuple[Scoring, ...] = ()
    sound: bool = False

    @classmethod
    def of(
        cls,
        item: str,
        samples: Sequence[Sample],
        space: AnswerSpace,
        scorings: Sequence[Scoring] = (),
        sound: bool = False,
    ) -> Question:
        leads = groups([sample.answer for sample in samples], space)
        return cls(item, tuple(samples), tuple(leads), tuple(scorings), sound)

    def score(self, place: int) -> float:
        return (self.scorings[place].score or 0.0) if self.scorings else 0.0

    def proved(self, place: int) -> bool:
        return self.sound and self.leads[place] is not None and self.score(place) >= 1

    def tokens(self, place: int) -> int:
        """Drawn for an attempt and by the scorer that looked at it."""
        return self.samples[place].tokens + sum(look.scorer_tokens for look in self.scorings[place : place + 1])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a strategy came to on one question: its answer's class and what it cost."""

    kind: Kind
    tokens: int
    prefill: int
    share: float
    pages: int


def servable(plan: Plan, budget: Budget) -> bool:
    """Whether a pool can say what this strategy does within this budget."""
    others = (budget.prefill, budget.seconds, budget.flops, budget.pages, budget.calls)
    return isinstance(plan, Step) and plan.strategy.name in POOLED and all(bound is None for bound in others)


def needed(plan: Step) -> int:
    """How many samples a question it needs."""
    return int(_given(plan).get("n", 1))


def _given(plan: Step) -> dict[str, Any]:
    return plan.strategy.parameters | plan.parameters


def outcomes(plan: Step, question: Question, budget: Budget, orders: np.ndarray) -> list[Outcome]:
    """One outcome an order: the strategy takes the question's samples in that order, as many as fit."""
    if needed(plan) > len(question.samples):
        raise InvalidRequest(
            f"{plan} needs {needed(plan)} samples a question; give --samples {needed(plan)} or more.", "samples"
        )
    return [_outcome(plan, question, budget, [int(place) for place in order]) for order in orders]


def orders_of(size: int, seed: int = 0, count: int = ORDERS) -> np.ndarray:
    """int [count, size]: the order of drawing, then random ones."""
    rng = np.random.default_rng([seed, size])
    more = min(count, math.factorial(size)) - 1
    return np.stack([np.arange(size), *(rng.permutation(size) for _ in range(more))])


def _outcome(plan: Step, question: Question, budget: Budget, order: list[int]) -> Outcome:
    if "scorer" not in plan.needs:
        question = replace(question, scorings=())
    fitting = _fitting(question, order[: needed(plan)], budget)
    waves = _waves(plan, question, fitting)
    taken = [place for wave in waves for place in wave]
    if not taken:
        return Outcome("budget", 0, question.samples[order[0]].prompt, 0.0, 0)
    used = [question.samples[place] for place in taken]
    looks = [question.scorings[place] for place in taken if question.scorings]
    return Outcome(
        question.samples[pick(plan.rule, question, taken)].kind,
        sum(question.tokens(place) for place in taken),
        used[0].prompt + sum(look.scorer_prefill for look in looks),
        sum(one.share for one in used) + sum(look.share for look in looks),
        max(_pages([question.samples[place] for place in wave]) for wave in waves) + sum(look.pages for look in looks),
    )


def _fitting(question: Question, order: Sequence[int], budget: Budget) -> list[int]:
    """Samples are drawn whole: the first that is longer than what is left ends it."""
    left = float("inf") if budget.tokens is None else budget.tokens
    found = []
    for place in order:
        left -= question.tokens(place)
        if left < 0:
            break
        found.append(place)
    return found


def _waves(plan: Step, question: Question, fitting: list[int]) -> list[list[int]]:
    """Those that run side by side; adaptive consistency ends with the wave that made it sure, a proof as well."""
    given, votes = _given(plan), Counter[int]()
    adaptive = plan.strategy.name == "adaptive_consistency"
    if not adaptive and not (plan.strategy.name == "best_of_n" and question.sound):
        return [fitting] if fitting else []
    size, waves = int(given["wave"]), list[list[int]]()
    for start in range(0, len(fitting), size):
        waves.append(wave := fitting[start : start + size])
        votes.update(lead for place in wave if (lead := question.leads[place]) is not None)
        if betastop(votes.values(), given["confidence"]) if adaptive else any(map(question.proved, wave)):
            break
    return waves


def pick(rule: Best, question: Question, taken: Sequence[int]) -> int:
    """The sample that `choose.best_of` would choose of those taken, by the groups known already."""
    pool = [place for place in taken if question.leads[place] is not None] or list(taken)
    if rule == "first":
        return pool[0]
    if rule == "score" or question.leads[pool[0]] is None:
        return max(pool, key=question.score)
    weights = [question.score(place) if rule == "weighted" else 1.0 for place in pool]
    top = vote([question.leads[place] for place in pool], weights).answer
    return max((place for place in pool if question.leads[place] == top), key=question.score)


def _pages(samples: Sequence[Sample]) -> int:
    """Pages that forks of one prompt hold at once: its full pages are theirs together."""
    shared = samples[0].prompt // PAGE_TOKENS
    return shared + sum(sample.pages - shared for sample in samples)
