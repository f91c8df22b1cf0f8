"""What stored samples say of plans behind a probe is what `auto` makes of the same attempts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headrace.reason.allocator import STAY, Record, Table, Tried, difficulty, read_table, table_named, table_path
from headrace.reason.answers import Number
from headrace.reason.evaluation.allocation import Pool, cheapest, outcome, probed, records
from headrace.reason.evaluation.pooled import Question
from headrace.reason.evaluation.store import Sample, Scoring
from headrace.reason.solve import Result
from headrace.spec.errors import InvalidRequest
from reason.toy import solved, toy_engine

SPACE = Number()


def sample(place: int, answer: str | None, score: float | None = 0.5, tokens: int = 10) -> Sample:
    kind = "right" if answer == "7" else "wrong"
    return Sample(
        "q", "", "{}", place, 0, kind, answer, answer or "", score, tokens, 24, 20, 0, 4, 3, 1.0, 0.5, "done",
        False, False,
    )  # fmt: skip


def pool_of(*samples: Sample, **searches: list[Sample]) -> Pool:
    """What a sample has of a score is what a scorer made of it afterwards."""
    named = {{"beam": "step_beam(width=2)"}[name]: runs for name, runs in searches.items()}
    looks = [Scoring("q", one.draw, "s", one.score, 0, one.scorer_prefill, 0, 0.0, 0.0) for one in samples]
    scored = any(one.score is not None for one in samples)
    return Pool(Question.of("q", samples, SPACE, looks if scored else ()), SPACE, named)


def of_run(result: Result, scored: bool) -> Pool:
    """The candidates of a live run as if each had been drawn for a pool."""
    share = result.usage["scorer"]["prompt"] // len(result.candidates)
    prompt = len(next(result.trace.of("open")).data["tokens"])
    made = [
        replace(
            sample(c.id, c.answer, c.score if scored else None, c.tokens),
            text=c.text,
            kind="right" if c.answer == result.answer else "wrong",
            scorer_prefill=share if scored else 0,
            prompt=prompt,
        )
        for c in result.candidates
    ]
    return pool_of(*made)


PLANS = (STAY, "self_consistency(n=3)", "weighted_vote(n=3)", "best_of_n(n=3)")


@pytest.mark.parametrize(
    ("plan", "scored"), [*((plan, True) for plan in PLANS), *((plan, False) for plan in PLANS[:2])]
)
def test_answer_difficulty_and_tokens_are_those_of_auto(
    plan: str, scored: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path))
    Table((), (plan,), 3).save(table_path("only"))
    with toy_engine() as engine:
        how = {} if scored else {"scorer": None}
        result = solved(engine, "auto(table='only')", **how)
    pool = of_run(result, scored)
    if scored and plan.startswith("self"):  # its further attempts are not scored: the probe's share is all there is
        each = result.usage["scorer"]["prompt"] // 3
        pool = pool_of(*(replace(one, scorer_prefill=each) for one in pool.question.samples))
    (found,) = records(pool, [plan], np.arange(len(result.candidates))[None], probe=3)
    (chosen,) = result.trace.of("chosen")
    assert found.difficulty == chosen.data["difficulty"] == difficulty(result.candidates[:3], SPACE)
    assert found.plans[plan] == Tried(1.0, result.usage["completion"] + result.usage["prompt"])


def test_a_search_by_score_is_the_better_of_its_best_and_the_probe() -> None:
    low, high = sample(0, "7", 0.3, 40), sample(1, "8", 0.9, 40)
    pool = [sample(0, "8", 0.5), sample(1, "8", 0.6)]
    orders = np.array([[0, 1], [1, 0]])
    plan = "step_beam(width=2)"
    first, second = records(pool_of(*pool, beam=[low, high]), [plan], orders, probe=2)
    assert first.plans[plan].right == 0 and second.plans[plan].right == 0
    (won,) = records(pool_of(*pool, beam=[replace(low, score=0.7)]), [plan], orders[:1], probe=2)
    assert won.plans[plan] == Tried(1.0, 20 + 2 * (10 + 4) + 40 + 24)
    for other in ("dvts(width=2)", "weighted_vote(n=2) | step_beam(width=2)", "step_beam(width=3)"):
        with pytest.raises(InvalidRequest, match="No stored sample"):
            records(pool_of(*pool, beam=[low]), [other], orders, probe=2)
    with pytest.raises(InvalidRequest, match="1 samples a question more"):
        records(pool_of(*pool), ["best_of_n(n=1)"], orders, probe=2)


def test_the_estimate_knows_nothing_of_right_and_wrong() -> None:
    pool = [sample(k, answer) for k, answer in enumerate("7787")]
    turned = [replace(one, kind="wrong" if one.kind == "right" else "right") for one in pool]
    assert probed(pool_of(*pool), [0, 1, 2, 3]) == probed(pool_of(*turned), [0, 1, 2, 3]) == (0.25 + 0.5) / 2


def test_the_cheapest_table_that_is_right_often_enough() -> None:
    def record(hard: float, few: float, many: float) -> Record:
        return Record(hard, {STAY: Tried(few, 10), "best_of_n(n=12)": Tried(many, 100)})

    found = [record(0.1, 1, 1), record(0.2, 1, 1), record(0.8, 0, 1), record(0.9, 0, 0)] * 3
    table = cheapest(found, right=0.75, bins=4)
    assert table.plans == (STAY, STAY, "best_of_n(n=12)", STAY)
    assert outcome(table, found) == Tried(0.75, (10 + 10 + 100 + 10) / 4)
    assert set(cheapest(found, right=0.5, bins=4).plans) == {STAY}
    assert outcome(cheapest(found, right=0.99, bins=4), found).right == 0.75, "the most right where none is enough"


def test_tables_are_read_by_file_and_some_come_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path))
    table = Table((0.5,), (STAY, "self_consistency(n=4)"), 3)
    table.save(tmp_path / "mine.json")
    assert read_table(tmp_path / "mine.json") == table
    assert table_named("lm-t", scored=True).probe == 4
    table.save(table_path("lm-t"))
    assert table_named("lm-t", scored=True) == table, "one of the user's own goes before"
    (tmp_path / "torn.json").write_text('{"edges": [0.5')
    for path in (tmp_path / "torn.json", tmp_path / "none.json"):
        with pytest.raises(InvalidRequest, match="holds no table"):
            read_table(path)
