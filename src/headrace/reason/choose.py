"""Which of several candidates is the answer, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from headrace.reason.votes import Vote, vote
from headrace.spec.reasoning import AnswerSpace, Candidate

Best: TypeAlias = Literal["first", "vote", "weighted", "score", "last"]


def groups(answers: Sequence[str | None], space: AnswerSpace) -> list[int | None]:
    """The index of the first equal answer for each; None where there is none.

    Equality may be neither symmetric nor transitive; the groups are the closure of both directions.
    """
    parent = list(range(len(answers)))

    def root(index: int) -> int:
        while parent[index] != index:
            index = parent[index]
        return index

    for index, answer in enumerate(answers):
        for earlier in range(index):
            other, a, b = answers[earlier], root(index), root(earlier)
            if answer is None or other is None or a == b:
                continue
            if answer == other or space.equal(answer, other) or space.equal(other, answer):
                parent[max(a, b)] = min(a, b)
    return [None if answer is None else root(index) for index, answer in enumerate(answers)]


def best_of(candidates: Sequence[Candidate], rule: Best, space: AnswerSpace) -> Candidate | None:
    """By `rule`, among the finished with an answer, else among those with one, the finished, all; ties to the first.

    What a bound has cut may name a number on its way that is no answer: it never outvotes what was said to the end.
    """
    answered = [c for c in candidates if c.answer is not None]
    finished = [c for c in candidates if c.finished]
    pool = [c for c in answered if c.finished] or answered or finished or list(candidates)
    if not pool:
        return None
    if rule == "first":
        return pool[0]
    if rule == "last":
        return pool[-1]
    if rule == "score" or pool[0].answer is None:
        return max(pool, key=_score)
    top = tally(pool, rule == "weighted", space).answer
    members = [c for c, lead in zip(pool, groups([c.answer for c in pool], space), strict=True) if lead == top]
    return max(members, key=_score)


def tally(pool: Sequence[Candidate], weighted: bool, space: AnswerSpace) -> Vote:
    """The vote among groups of equal answers, each known by the index of its first member in `pool`."""
    weights = [candidate.weight * (_score(candidate) if weighted else 1.0) for candidate in pool]
    return vote(groups([candidate.answer for candidate in pool], space), weights)


def _score(candidate: Candidate) -> float:
    return 0.0 if candidate.score is None else candidate.score
