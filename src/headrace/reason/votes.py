"""Choosing among candidates: votes, and who gets how many continuations."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar, get_args

from headrace.spec.errors import InvalidRequest

T = TypeVar("T")
Rule: TypeAlias = Literal["topk", "rebase", "dvts"]


@dataclass(frozen=True, slots=True)
class Vote:
    """`weights` are by answer in the order of first sight; `tied` are the answers that the winner only preceded."""

    answer: Hashable | None
    share: float
    tied: tuple[Hashable, ...]
    weights: dict[Hashable, float]
    unparsed: int


def vote(candidates: Sequence[Hashable | None], weights: Sequence[float] | None = None) -> Vote:
    """The answer with the greatest sum of weights, 1 each by default; ties go to the first seen.

    Candidates are keys of an answer space; None is an unparsed one and casts no vote. Weights count as they
    are: nothing is rescaled within the question, so the worst candidate keeps its say. The share is of the
    parsed weight. Raises InvalidRequest for a weight that is negative or no number.
    """
    weights = [1.0] * len(candidates) if weights is None else weights
    if any(not weight >= 0 for weight in weights):
        raise InvalidRequest("A vote's weight is negative or no number; give weights of 0 or more.", "weights")
    cast: dict[Hashable, list[float]] = {}
    for key, weight in zip(candidates, weights, strict=True):
        if key is not None:
            cast.setdefault(key, []).append(weight)
    sums = {key: math.fsum(each) for key, each in cast.items()}  # exact, so that equal votes do tie
    whole, most = math.fsum(sums.values()), max(sums.values(), default=0.0)
    unparsed = sum(key is None for key in candidates)
    winners = [key for key, weight in sums.items() if weight == most]
    return Vote(next(iter(winners), None), most / whole if whole else 0.0, tuple(winners[1:]), sums, unparsed)


def dedupe(items: Iterable[T], key: Callable[[T], Hashable]) -> list[T]:
    """The first item of each key, in order."""
    first: dict[Hashable, T] = {}
    for item in items:
        first.setdefault(key(item), item)
    return list(first.values())


def allocate(
    scores: Sequence[float],
    n: int,
    rule: Rule = "topk",
    *,
    keep: int = 1,
    temperature: float = 0.2,
    trees: Sequence[Hashable] | None = None,
) -> tuple[int, ...]:
    """How many of the next n continuations each candidate gets; they sum to n.

    `topk` shares n evenly among the `keep` best (step beam, Snell et al. 2024), `rebase` in proportion to
    exp(score / temperature) (Wu et al. 2024), `dvts` evenly among the best of each tree, `trees` naming every
    candidate's (Beeching et al. 2024). Ties go to the first. Raises InvalidRequest when a rule lacks its input.
    """
    if not scores:
        raise InvalidRequest("There is nobody to continue; give at least one score.", "scores")
    if rule == "topk":
        return _apportion(_even(_best(scores)[:keep], len(scores)), n, scores)
    if rule == "rebase":
        return _apportion(_softmax(scores, temperature), n, scores)
    if rule == "dvts" and trees is not None:
        return _apportion(_even(_winners(scores, trees), len(scores)), n, scores)
    if rule == "dvts":
        raise InvalidRequest("The rule 'dvts' needs to know the trees; name each candidate's.", "trees")
    raise InvalidRequest(f"There is no rule {rule!r}; choose {_list(get_args(Rule))}.", "rule")


def _best(scores: Sequence[float]) -> list[int]:
    """Indices by falling score, the first seen before its equals."""
    return sorted(range(len(scores)), key=lambda index: -scores[index])


def _winners(scores: Sequence[float], trees: Sequence[Hashable]) -> list[int]:
    return dedupe(_best(scores), lambda index: trees[index])


def _even(chosen: Sequence[int], count: int) -> list[float]:
    members = set(chosen)
    return [1 / len(members) if index in members else 0.0 for index in range(count)]


def _softmax(scores: Sequence[float], temperature: float) -> list[float]:
    if not temperature > 0:
        raise InvalidRequest(f"A temperature of {temperature} ranks nobody; give one above 0.", "temperature")
    top = max(scores)
    mass = [math.exp((score - top) / temperature) for score in scores]
    return [one / math.fsum(mass) for one in mass]


def _apportion(shares: Sequence[float], n: int, scores: Sequence[float]) -> tuple[int, ...]:
    """Whole numbers closest to n * share that sum to n (largest remainders); equal remainders by score."""
    exact = [round(n * share, 9) for share in shares]
    seats = [math.floor(seat) for seat in exact]
    by_rest = sorted(range(len(seats)), key=lambda index: (seats[index] - exact[index], -scores[index]))
    for index in by_rest[: n - sum(seats)]:
        seats[index] += 1
    return tuple(seats)


def _list(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
