"""Which candidate is the answer: cut ones only where there are no others, and no comparing on the event loop."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, replace

import pytest

from headrace.reason.answers import Number
from headrace.reason.choose import Best, best_of
from headrace.reason.solve import solve
from headrace.spec.reasoning import Candidate
from reason.toy import ORDER, TASK, toy_engine

RULES: tuple[Best, ...] = ("first", "last", "score", "vote", "weighted")


@pytest.mark.parametrize("rule", RULES)
def test_a_cut_attempt_is_no_answer_beside_a_whole_one(rule: Best) -> None:
    """Its text may end in a number, and a scorer may like it, but it never came to its answer."""
    cut = [Candidate(place, f"0.{place}", "15-3=1", "1", finished=False, score=0.9) for place in (0, 1, 3)]
    whole = Candidate(2, "0.2", "Answer: 12", "12", score=0.4)
    unread = Candidate(4, "0.4", "well", None, score=1.0)
    assert best_of([*cut[:2], whole, cut[2], unread], rule, Number()) is whole
    assert best_of([unread, *cut], rule, Number()) in cut
    assert best_of([unread], rule, Number()) is unread


@dataclass(frozen=True, slots=True)
class Watched(Number):
    """Remembers in which threads answers were compared."""

    threads: tuple[set[int], ...] = (set(),)

    def equal(self, a: str, b: str) -> bool:
        self.threads[0].add(threading.get_ident())
        return a == b


@pytest.mark.parametrize(
    "name", ["self_consistency", "adaptive_consistency", "probe_until_sure(every=4, cue='7')", "auto", "deepconf"]
)
def test_answers_are_compared_beside_the_event_loop(name: str) -> None:
    """A comparison may take seconds; the loop is the server's as well."""
    space = Watched(threads=(set(),))
    with toy_engine() as engine:
        asyncio.run(solve(engine, replace(TASK, answers=space), replace(ORDER, strategy=name)))
    assert space.threads[0] and threading.get_ident() not in space.threads[0]
