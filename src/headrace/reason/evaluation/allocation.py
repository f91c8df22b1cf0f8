"""From an evaluation's stored samples to a table for `auto`: what every plan would have come to behind a probe.

The attempts of the probe are the first members of a plan, as in `auto` itself, and are paid for in every plan.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from headrace.reason.allocator import STAY, Record, Table, Tried, calibrate, difficulty
from headrace.reason.evaluation.pooled import Question, needed, pick
from headrace.reason.evaluation.store import Sample
from headrace.reason.strategy import Plan, Step, parse
from headrace.spec.errors import InvalidRequest
from headrace.spec.reasoning import AnswerSpace, Candidate

PROBE = 4
FRESH = frozenset(("single", "self_consistency", "best_of_n", "weighted_vote"))
"""Strategies whose further attempts a pool has."""
PRICES = (0.0, *(2.0 ** (power / 2) for power in range(-34, -9)))
"""Of a token, in right answers: from next to nothing to one answer for 30 tokens."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The pool of one question and, by strategy, live runs of searches on it."""

    question: Question
    space: AnswerSpace
    searches: Mapping[str, Sequence[Sample]] = field(default_factory=dict)


def probed(pool: Pool, order: Sequence[int], probe: int = PROBE) -> float:
    """The difficulty that the first attempts of an order show; of the known answer it sees nothing."""
    question = pool.question
    found: list[Candidate] = []
    for place in order[:probe]:
        one, score = question.samples[place], question.score(place) if question.scorings else None
        found.append(Candidate(len(found), "", one.text, one.answer, not one.cut, score))
    return difficulty(found, pool.space)


def records(pool: Pool, plans: Sequence[str], orders: np.ndarray, probe: int = PROBE) -> list[Record]:
    """One an order (int [count, samples]): the probe is its first attempts, a plan takes the next ones.

    Raises InvalidRequest for a plan that the stored samples cannot tell of.
    """
    steps = {text: parse(text) if text != STAY else None for text in plans}
    found = []
    for turn, row in enumerate(orders):
        order = [int(place) for place in row]
        tried = {text: _tried(pool, step, order, probe, turn) for text, step in steps.items()}
        found.append(Record(probed(pool, order, probe), tried))
    return found


def _tried(pool: Pool, plan: Plan | None, order: Sequence[int], probe: int, turn: int) -> Tried:
    question, first = pool.question, order[:probe]
    prompt, scored = question.samples[first[0]].prompt, bool(question.scorings)
    spent = prompt + sum(_cost(question, place, scored) for place in first)
    if plan is None:
        return Tried(_right(question, pick("weighted" if scored else "vote", question, first)), spent)
    if isinstance(plan, Step) and plan.strategy.name in FRESH:
        more = _next(question, plan, order[probe:])
        paid = scored and "scorer" in plan.needs
        spent += prompt + sum(_cost(question, place, paid) for place in more)
        return Tried(_right(question, pick(plan.rule, question, [*first, *more])), spent)
    return _searched(pool, plan, first, spent, turn)


def _next(question: Question, plan: Step, order: Sequence[int]) -> Sequence[int]:
    if needed(plan) > len(order):
        raise InvalidRequest(
            f"{plan} behind the probe needs {needed(plan) - len(order)} samples a question more; give more --samples.",
            "samples",
        )
    return order[: needed(plan)]


def _searched(pool: Pool, plan: Plan, first: Sequence[int], spent: float, turn: int) -> Tried:
    """A search ran by itself; by score, the best of all is the better of its best and the probe's best."""
    runs = pool.searches.get(str(plan), ())
    if plan.rule != "score" or not runs:
        raise InvalidRequest(f"No stored sample tells what {plan} does behind a probe; leave it out.", "plans")
    run, place = runs[turn % len(runs)], pick("score", pool.question, first)
    both = ((pool.question.samples[place], pool.question.score(place)), (run, run.score or 0.0))
    kept, _ = max(both, key=lambda one: (one[0].answer is not None, one[1]))
    return Tried(float(kept.kind == "right"), spent + run.tokens + run.prefill)


def _cost(question: Question, place: int, scored: bool) -> int:
    """Tokens of one attempt, drawn and given, without the question's."""
    if not scored:
        return question.samples[place].tokens
    return question.tokens(place) + question.scorings[place].scorer_prefill


def _right(question: Question, place: int) -> float:
    return float(question.samples[place].kind == "right")


def outcome(table: Table, records: Sequence[Record]) -> Tried:
    """How often the plans that a table chooses are right, and their mean tokens."""
    tried = [record.plans[table.plan(record.difficulty)] for record in records]
    return Tried(math.fsum(one.right for one in tried) / len(tried), math.fsum(t.tokens for t in tried) / len(tried))


def cheapest(records: Sequence[Record], right: float, bins: int = 5, probe: int = PROBE) -> Table:
    """The table of fewest tokens that is right as often as `right` on these records; else the one most often right.

    Try it on other questions than those it was made from. Raises InvalidRequest without records.
    """
    tables = [calibrate(records, bins, price, probe) for price in PRICES]
    found = [(outcome(table, records), table) for table in tables]
    enough = [(-one.tokens, table) for one, table in found if one.right >= right]
    if enough:
        return max(enough, key=lambda pair: pair[0])[1]
    return max(found, key=lambda pair: pair[0].right)[1]
