"""Sequential Monte Carlo with a declared target, put together from `blocks` and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, Literal, NamedTuple, TypeAlias

from headrace.reason.blocks import Block, Kernel, move, resample, reweight
from headrace.reason.choice import Choice
from headrace.reason.resample import Method

Target: TypeAlias = Literal["outcome", "product"]


class Progress(NamedTuple):
    """A particle before and after its latest step; the same twice once it has finished."""

    before: Any
    now: Any


def factor(target: Target, before: Any, now: Any) -> Any:
    """By how much a step from score `before` to score `now`, both in (0, 1], multiplies a particle's weight.

    `outcome` aims at p(y) r(y): twisting, the factors of a path telescope to its last score when the first
    `before` is 1. `product` aims at p(y) times the scores after every step. A finished particle takes no step.
    """
    return now / before if target == "outcome" else now


def smc(
    extend: Kernel,
    finished: Callable[[Any], bool],
    score: Callable[[Any], Any],
    steps: int,
    target: Target = "outcome",
    method: Method = "systematic",
    threshold: Any = Fraction(1, 2),
) -> tuple[Block, ...]:
    """The blocks of `steps` rounds of extend, weigh and resample over particles of type Progress.

    `score` is 1 before the first step. A finished particle keeps its weight and is never weighed again.
    """

    def step(particle: Progress, choice: Choice) -> Progress:
        now = particle.now
        return Progress(now, now if finished(now) else extend(now, choice))

    def weigh(particle: Progress) -> Any:
        if finished(particle.before):
            return 1
        return factor(target, score(particle.before), score(particle.now))

    return (move(step), reweight(weigh), resample(method, threshold)) * steps
