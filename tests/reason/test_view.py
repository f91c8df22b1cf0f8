"""Views of a trace: pairs hold a step beside one that really is worse."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.reason.view import Tree, preferences
from headrace.spec.trace import Trace


def asked(*candidates: dict[str, Any], best: int, scores: list[float] | None = None, answers: str = "number") -> Trace:
    """A root with one fork for each candidate, of which one is the best."""
    trace = Trace()
    trace.add("run", question="7 + 5 = ?", answers=answers)
    trace.add("open", "0")
    trace.add("fork", "0", paths=[[number] for number in range(len(candidates))])
    for number, one in enumerate(candidates):
        trace.add("extend", f"0.{number}", text=f"so {number}: {one['answer']}", tokens=[1])
        data: dict[str, Any] = {"finished": True, "text": "", "score": None} | one
        trace.add("candidate", f"candidate{number}", asked=[f"0.{number}"], **data)
    if scores is not None:
        trace.add("scores", "scoring1", asked=[f"0.{number}" for number in range(len(candidates))], values=scores)
    trace.add("best", candidate=best, answer=candidates[best]["answer"])
    return trace


def worse(trace: Trace) -> list[str]:
    found = list(preferences(trace))
    assert all(pair["prompt"] == "7 + 5 = ?" and pair["context"] == "" for pair in found)
    return [pair["rejected"] for pair in found]


def said(*answers: str | None) -> list[dict[str, Any]]:
    return [{"answer": answer} for answer in answers]


@pytest.mark.parametrize("answers", ["number", "a space without a name"])
def test_a_vote_prefers_only_what_has_more_of_it(answers: str) -> None:
    assert worse(asked(*said("12", "13", "14"), best=0, answers=answers)) == []
    assert worse(asked(*said("12", "13", "12", "13", "9"), best=0, answers=answers)) == ["so 4: 9"]
    assert worse(asked(*said("13", "12", "12", None), best=1, answers=answers)) == ["so 0: 13", "so 3: None"]


def test_what_a_bound_has_cut_is_not_worse_and_has_no_vote() -> None:
    cut = {"answer": "13", "finished": False}
    assert worse(asked(*said("12"), cut, cut, best=0)) == []
    assert worse(asked(*said("12", "12", "13"), cut, best=0)) == ["so 2: 13"]
    assert Tree.of(asked(*said("12"), cut, best=0)).roots[0].kids[1].finished is False


def test_scores_decide_where_both_have_one() -> None:
    trace = asked(*said("12", "13", "12", "13"), best=0, scores=[0.8, 0.8, 0.3, 0.9])
    assert worse(trace) == ["so 2: 12"]
