"""Which particles have offspring: four unbiased ways, and one that also keeps weights unequal.

Written with + - * / and comparisons only, so that `fractions.Fraction` goes through the same lines as floats.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, Literal, TypeAlias, get_args

from headrace.reason.choice import Choice, draw
from headrace.spec.errors import InvalidRequest

Method: TypeAlias = Literal["systematic", "stratified", "residual", "multinomial"]
METHODS: tuple[Method, ...] = get_args(Method)


def shares_of(weights: Sequence[Any]) -> list[Any]:
    """Weights over their sum. Raises InvalidRequest when none is positive."""
    total = sum(weights)
    if not total > 0:
        raise InvalidRequest("No particle has a positive weight; give at least one.", "weights")
    return [weight / total for weight in weights]


def ancestors(weights: Sequence[Any], n: int, choice: Choice, method: Method = "systematic") -> tuple[int, ...]:
    """The indices of n parents; the expected number of offspring of i is n * weight i / sum of weights.

    At most n uniforms are drawn. Raises InvalidRequest for an unknown method or without a positive weight.
    Douc, Cappé and Moulines 2005 compare the four.
    """
    if method not in _PICK:
        raise InvalidRequest(f"There is no resampling method {method!r}; choose one of {', '.join(METHODS)}.", "method")
    return tuple(_PICK[method](shares_of(weights), n, choice))


def _multinomial(shares: Sequence[Any], n: int, choice: Choice) -> list[int]:
    return [draw(choice, shares) for _ in range(n)]


def _stratified(shares: Sequence[Any], n: int, choice: Choice) -> list[int]:
    """One uniform in each of n equal strata."""
    marks = _marks(shares, n)
    return [bisect_right(marks, choice.uniform([mark - i for mark in marks]) + i) for i in range(n)]


def _systematic(shares: Sequence[Any], n: int, choice: Choice) -> list[int]:
    """One uniform, repeated in each of n equal strata."""
    marks = _marks(shares, n)
    start = choice.uniform([mark - math.floor(mark) for mark in marks])
    return [bisect_right(marks, start + i) for i in range(n)]


def _marks(shares: Sequence[Any], n: int) -> list[Any]:
    """The cumulative shares times n, without the end: what lies beyond belongs to the last positive share."""
    last = max(index for index, share in enumerate(shares) if share > 0)
    return [n * reached for reached in accumulate(shares[:last])]


def _residual(shares: Sequence[Any], n: int, choice: Choice) -> list[int]:
    """The whole part of each expectation for certain, the rest multinomially (Liu and Chen 1998)."""
    whole = [math.floor(n * share) for share in shares]
    certain = [index for index, copies in enumerate(whole) for _ in range(copies)]
    if len(certain) >= n:
        return certain[:n]
    rest = [n * share - copies for share, copies in zip(shares, whole, strict=True)]
    return certain + _multinomial(shares_of(rest), n - len(certain), choice)


_PICK: dict[Method, Callable[[Sequence[Any], int, Choice], list[int]]] = {
    "systematic": _systematic,
    "stratified": _stratified,
    "residual": _residual,
    "multinomial": _multinomial,
}


def thin(weights: Sequence[Any], n: int, choice: Choice) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    """At most n distinct particles and their new weights, each expected weight unchanged.

    Weights above the level where sum(min(1, weight / level)) = n stay as they are; of the others some survive,
    with the level as their weight. Optimal without replacement (Fearnhead and Clifford 2003).
    """
    positive = [index for index, weight in enumerate(weights) if weight > 0]
    if len(positive) <= n:
        return tuple(positive), tuple(weights[index] for index in positive)
    ranked = sorted(positive, key=lambda index: weights[index], reverse=True)
    kept, level = _level([weights[index] for index in ranked], n)
    tail = sorted(ranked[kept:])
    lucky = _systematic(shares_of([weights[index] for index in tail]), n - kept, choice)
    chosen = {**{index: weights[index] for index in ranked[:kept]}, **{tail[place]: level for place in lucky}}
    return tuple(sorted(chosen)), tuple(chosen[index] for index in sorted(chosen))


def _level(descending: Sequence[Any], n: int) -> tuple[int, Any]:
    """How many of the largest weights are kept for certain, and the level that the others rise to."""
    tails = list(accumulate(reversed(descending)))[::-1]
    for kept in range(n):
        level = tails[kept] / (n - kept)
        if not descending[kept] > level:
            return kept, level
    raise AssertionError("the largest weights alone exceed their own sum")
