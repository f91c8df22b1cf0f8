"""What `solve` refuses of a caller's values: one sentence that names the value and what to give."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.reason.llm import LLM
from headrace.spec.budget import Budget
from headrace.spec.errors import InvalidRequest
from reason.toy import TASK, toy_engine

REFUSED: dict[str, dict[str, Any]] = {
    "budget is 400; give a text like '400 tok' or a Budget": {"budget": 400},
    "strategy is None; give a text like 'self_consistency": {"strategy": None},
    "seed is 'x'; give a whole number": {"seed": "x"},
    "seed is True; give a whole number": {"seed": True},
    "sampling is 0.5; give a Sampling": {"sampling": 0.5},
    "scorer is 3; give": {"scorer": 3},
    "adapter is 3; give": {"adapter": 3},
    "question is 12; give a text or a Task": {"question": 12},
    "max_tokens is '9'; give a whole number": {"question": "1 + 1 = ?", "max_tokens": "9"},
    "answer is 4; give": {"question": "1 + 1 = ?", "answer": 4},
}


@pytest.mark.parametrize("told", REFUSED)
@pytest.mark.parametrize("streamed", [False, True])
def test_values_of_another_type_are_refused_before_anything_runs(told: str, streamed: bool) -> None:
    how: dict[str, Any] = {"question": TASK, "strategy": "single"} | REFUSED[told]
    with toy_engine() as engine:
        llm = object.__new__(LLM)
        llm.engine = engine
        with pytest.raises(InvalidRequest) as refusal:
            list(llm.solve_stream(**how)) if streamed else llm.solve(**how)
        assert engine.stats()["steps"] == 0
    assert str(refusal.value).startswith(told) and str(refusal.value).endswith(".")


def test_a_budget_is_text_or_a_budget() -> None:
    with toy_engine() as engine:
        llm = object.__new__(LLM)
        llm.engine = engine
        told, made = (llm.solve(TASK, "single", budget=one, seed=3) for one in ("7 tok", Budget(tokens=7)))
    assert told.text == made.text and told.usage["completion"] <= 7
