"""A sound scorer's 1 is a proof: best-of-N ends at the first that it proves, and draws until then as without it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from headrace.reason.answers import Choice
from headrace.reason.evaluation.pooled import orders_of, outcomes
from headrace.reason.solve import Result, replay
from headrace.reason.strategy import parse
from headrace.spec.budget import Budget
from headrace.spec.errors import InvalidRequest
from headrace.spec.reasoning import Score
from headrace.spec.trace import Trace
from reason.test_pooled import pool
from reason.toy import TASK, solved, toy_engine

STRATEGY = "best_of_n(n=12, wave=2)"


@dataclass(frozen=True)
class EndsIn:
    """Proves answers that end in one of these digits; `sound` False: says the same without the claim."""

    digits: str
    sound: bool = True
    name: str = "ends in"
    kind: str = "exact"
    oracle: bool = False

    async def score(self, items) -> list[Score]:
        answers = [TASK.answers.extract(item.text) for item in items]
        return [Score(float(answer is not None and answer[-1] in self.digits)) for answer in answers]


class Always:
    """Claims a proof of whatever it sees."""

    name, kind, sound, oracle = "always", "exact", True, False

    async def score(self, items) -> list[Score]:
        return [Score(1.0)] * len(items)


def pair(digits: str) -> tuple[Result, Result]:
    """The same run with a sound scorer and with one that says the same without the claim."""
    with toy_engine() as engine:
        proving = solved(engine, STRATEGY, scorer=EndsIn(digits))
        return proving, solved(engine, STRATEGY, scorer=EndsIn(digits, sound=False))


@pytest.mark.parametrize("digits", ["7", "05", "1"])
def test_best_of_n_ends_with_the_wave_of_the_first_proof(digits: str) -> None:
    proving, whole = pair(digits)
    assert len(whole.candidates) == 12
    first = next((c.id for c in whole.candidates if c.score == 1), None)
    assert first is not None and first < 10, "else the run says nothing about stopping"
    told = [(c.node, c.text, c.score) for c in whole.candidates]
    assert [(c.node, c.text, c.score) for c in proving.candidates] == told[: first // 2 * 2 + 2]
    assert proving.answer == whole.answer and proving.usage["completion"] < whole.usage["completion"]
    assert "sound" not in whole.trace.header, "a trace kept so far goes on as it was"


def test_without_a_proof_all_are_drawn() -> None:
    proving, whole = pair("x")
    assert [c.text for c in proving.candidates] == [c.text for c in whole.candidates]


def test_a_text_without_an_answer_or_cut_by_a_bound_proves_nothing() -> None:
    with toy_engine() as engine:
        unread = solved(engine, STRATEGY, replace(TASK, answers=Choice("XYZ")), scorer=Always())
        cut = solved(engine, "best_of_n(n=3, wave=1)", scorer=Always(), budget=Budget(tokens=2))
    assert len(unread.candidates) == 12 and not any(c.answer for c in unread.candidates)
    assert cut.stopped_by == "budget:tokens" and not any(c.finished for c in cut.candidates)


def test_a_proving_run_is_replayed_and_resumed_as_it_ran(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    with toy_engine() as engine:
        whole = solved(engine, STRATEGY, scorer=EndsIn("7"), trace=path)
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[: len(lines) // 2]))
        with pytest.raises(InvalidRequest, match="resume it as it began"):
            solved(engine, STRATEGY, scorer=EndsIn("7", sound=False), trace=path, resume=True)
        again = solved(engine, STRATEGY, scorer=EndsIn("7"), trace=path, resume=True)
    copy = asyncio.run(replay(Trace.load(path)))
    assert whole.trace_id == again.trace_id == copy.trace_id and whole.answer == again.answer == copy.answer


def test_a_pool_stops_where_the_run_does() -> None:
    proving, whole = pair("7")
    draws = [(c.answer, c.score or 0.0, c.tokens) for c in whole.candidates]
    question = replace(pool(draws), sound=True)
    (found,) = outcomes(parse(STRATEGY), question, Budget(), orders_of(12, 0, 1))  # type: ignore[arg-type]
    looks = 2 * len(proving.candidates)
    assert found.tokens == proving.usage["completion"] + looks, "a look of that pool draws 2 tokens"
