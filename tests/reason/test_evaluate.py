"""An evaluation gives the same figures whatever stood beside it and wherever it was stopped."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from headrace.reason.evaluate import Design, evaluate, oracle_scorer, settings
from headrace.reason.evaluation.clock import SharedClock
from headrace.reason.evaluation.filling import How, Job, carried_out, fill, seed_of
from headrace.reason.evaluation.pooled import ATTEMPT, Question, orders_of, outcomes
from headrace.reason.evaluation.store import KINDS, Key, Record, Sample, ScoringKey, Store
from headrace.reason.evaluation.table import outcome_of
from headrace.reason.scorers.judge import Judge
from headrace.reason.strategy import parse
from headrace.reason.task import Task
from headrace.reason.tasks.item import Item
from headrace.spec.budget import Budget
from headrace.spec.errors import InvalidRequest
from headrace.spec.reasoning import Scorer
from headrace.spec.sampling import Sampling, Stop
from reason.toy import TextScorer, toy_engine
from reason.toy_items import toy_items

HOW = How(seed=7, sampling=Sampling(temperature=1.2), scorer=TextScorer())
DESIGN = Design(
    toy_items(5),
    ("single", "self_consistency(n=4)", "best_of_n(n=4)", "adaptive_consistency(n=4, wave=2)", "step_beam"),
    (Budget(tokens=60), Budget()),
)


def evaluated(store: Store, how: How = HOW, design: Design = DESIGN) -> dict[str, Any]:
    with toy_engine() as engine:
        return asyncio.run(evaluate(engine, design, how, store))


def timeless(store: Store) -> dict[Any, Record]:
    return {key: replace(one, share=0.0) for key, one in (store.samples | store.scorings).items()}


def without_seconds(figures: dict[str, Any]) -> dict[str, Any]:
    copy = json.loads(json.dumps(figures))
    for row in copy["rows"] + copy["oracle"]:
        del row["seconds"]
    return copy


def test_results_do_not_depend_on_what_runs_beside() -> None:
    stores = [Store(None, {}) for _ in range(2)]
    alone, crowded = (
        evaluated(store, replace(HOW, concurrency=many)) for store, many in zip(stores, (1, 9), strict=True)
    )
    assert timeless(stores[0]) == timeless(stores[1])
    assert without_seconds(alone) == without_seconds(crowded)
    assert {row["source"] for row in alone["rows"]} == {"pool", "live"}
    assert len(stores[0].samples) == 5 * 4 + 5 * 2, "a pool of four, and one live strategy at two budgets"
    assert len(stores[0].scorings) == 5 * 4


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [0, 3, 17, 27, 44])
def test_an_evaluation_goes_on_where_it_was_stopped(tmp_path: Path, after: int) -> None:
    path = tmp_path / "s.jsonl"
    with Store(None, {}) as whole, Store(path, {}) as first:
        wanted = evaluated(whole)
        add = first.add

        def stop(record: Record) -> None:
            if len(timeless(first)) == after:
                raise Killed
            add(record)

        first.add = stop  # type: ignore[method-assign]
        with pytest.raises(Killed):
            evaluated(first)
    path.write_bytes(path.read_bytes() + b'{"item": "toy/1", "stra')
    with Store(path, {}) as second:
        assert len(timeless(second)) == after
        assert without_seconds(evaluated(second)) == without_seconds(wanted)
        assert timeless(second) == timeless(whole)
    assert len(path.read_text().splitlines()) == 1 + len(timeless(whole)), "nothing was made twice"
    with Store(path, {}) as third:
        assert without_seconds(evaluated_without_engine(third)) == without_seconds(wanted)


def evaluated_without_engine(store: Store) -> dict[str, Any]:
    with toy_engine() as engine:
        found = asyncio.run(evaluate(engine, DESIGN, HOW, store))
        assert engine.stats()["steps"] == 0, "everything was in the store"
        return found


def test_more_questions_and_samples_keep_those_there_were() -> None:
    with Store(None, {}) as small, Store(None, {}) as large:
        evaluated(small, design=replace(DESIGN, items=toy_items(3)))
        evaluated(large, design=replace(DESIGN, items=toy_items(5), samples=6))
        ours = timeless(large)
        assert all(ours[key] == sample for key, sample in timeless(small).items())


def test_attempts_are_drawn_once_and_scored_by_whoever_comes() -> None:
    vote, best = (Design(toy_items(3), (name,)) for name in ("self_consistency(n=3)", "best_of_n(n=3)"))
    with Store(None, {}) as store, toy_engine() as engine:
        asyncio.run(evaluate(engine, vote, replace(HOW, scorer=None), store))
        drawn = dict(store.samples)
        assert len(drawn) == 9 and not store.scorings
        for scorer in (TextScorer(), Judge("=?", "1", "2"), Judge("=?", "1", "2")):
            asyncio.run(evaluate(engine, best, replace(HOW, scorer=scorer), store))
        assert store.samples == drawn, "no attempt was drawn again"
        assert Counter(key.scorer for key in store.scorings) == {"text": 9, "judge": 9}


@pytest.mark.parametrize("scorer", [TextScorer(), Judge("=?", "1", "2")], ids=["text", "judge"])
def test_a_later_score_is_the_live_one_to_the_last_bit_and_costs_as_much(scorer: Scorer) -> None:
    items = toy_items(4)
    with Store(None, {}) as store:
        evaluated(store, replace(HOW, scorer=scorer), Design(items, ("best_of_n(n=2)",)))
        with toy_engine() as engine:
            for item, draw in product(items, range(2)):
                job = Job(item, "best_of_n(n=1)", Budget(), draw, scorer)
                live = asyncio.run(carried_out(engine, job, HOW, SharedClock(HOW.clock)))
                sample = store.samples[Key(item.id, ATTEMPT, "{}", draw)]
                scoring = store.scorings[ScoringKey(item.id, draw, scorer.name)]
                assert (live.text, live.score) == (sample.text, scoring.score) and live.score is not None
                assert (live.scorer_tokens, live.scorer_prefill) == (scoring.scorer_tokens, scoring.scorer_prefill)
                assert live.flops == sample.flops + scoring.flops
                question = Question.of(item.id, [sample], item.task.answers, [scoring])
                (pooled,) = outcomes(parse("best_of_n(n=1)"), question, Budget(), orders_of(1))  # type: ignore[arg-type]
                assert replace(pooled, share=live.share) == outcome_of(live), "the pooled row pays what the run pays"


def test_an_attempt_without_its_tokens_is_not_scored() -> None:
    design = Design(toy_items(1), ("best_of_n(n=1)",))
    with Store(None, {}) as store:
        evaluated(store, replace(HOW, scorer=None), Design(toy_items(1), ("single",)))
        store.samples = {key: replace(sample, ids=()) for key, sample in store.samples.items()}
        with pytest.raises(InvalidRequest, match="without its tokens; give another --store"):
            evaluated(store, design=design)


def test_live_runs_belong_to_the_scorer_that_they_ask() -> None:
    names = ("step_beam", "sequential_revision(rounds=1)", "auto", "auto & single")
    others: list[Scorer | None] = [TextScorer(), Judge("=?", "1", "2")]
    with Store(None, {}) as store:
        for scorer in others:
            evaluated(store, replace(HOW, scorer=scorer), Design(toy_items(1), names))
        evaluated(store, replace(HOW, scorer=None), Design(toy_items(1), names[1:]))
        found = {name: {key.scorer for key in store.samples if key.strategy == name} for name in names}
    asked = {"text", "judge"}
    assert found == {names[0]: asked, names[1]: {None}, names[2]: asked | {None}, names[3]: asked | {None}}


def one(item: Item, how: How = HOW, strategy: str = "single", budget: Budget = Budget()) -> Sample:
    """A run whose clock is the engine's steps."""
    with toy_engine() as engine:
        steps: list[object] = []
        engine.events.listen(steps.append)
        how = replace(how, clock=lambda: float(len(steps)))
        return asyncio.run(carried_out(engine, Job(item, strategy, budget, 0), how, SharedClock(how.clock)))


def test_every_class_has_its_own_name() -> None:
    (item,) = toy_items(1)
    never = replace(item, check=lambda answer: False)
    always = replace(item, check=lambda answer: True)
    mute = replace(item, task=replace(item.task, answers=Mute()))
    whole = [shorter(i, 400) for i in (never, always, mute)]
    ended = [one(i) for i in whole]
    assert not any(sample.cut for sample in ended), "the toy ends its text before 400 tokens"
    assert [sample.kind for sample in ended] == ["wrong", "right", "unparsed"]
    short = ended[0].tokens - 1
    assert one(shorter(whole[0], short)).kind == "budget", "the task's own limit is a bound as well"
    assert [one(i, budget=Budget(tokens=short)).kind for i in whole] == ["budget", "right", "budget"]
    assert one(whole[0], budget=Budget(prefill=2)).kind == "budget"
    assert one(whole[0], budget=Budget(seconds=3)).kind == "timeout"
    assert one(whole[1], budget=Budget(seconds=3)).kind == "right"
    slow = replace(whole[0], gold="1", check=None, task=replace(whole[0].task, answers=Undecided()))
    assert one(slow).kind == "timeout"
    assert set(KINDS) == {"right", "wrong", "unparsed", "timeout", "budget"}


def shorter(item: Item, tokens: int) -> Item:
    return replace(item, task=replace(item.task, ending=Stop(tokens=tokens)))


class Mute:
    name = "mute"

    def extract(self, text: str) -> str | None:
        return None

    def equal(self, a: str, b: str) -> bool:
        return False


class Undecided(Mute):
    def extract(self, text: str) -> str | None:
        return "x"

    def undecided(self, a: str, b: str) -> bool:
        return True


def test_a_question_beyond_the_context_costs_no_other_question() -> None:
    items = toy_items(3)
    items[1] = replace(items[1], task=replace(items[1].task, question="1 " * 600))
    with toy_engine() as engine, Store(None, {}) as store:
        jobs = [Job(item, "single", Budget(), 0) for item in items]
        asyncio.run(fill(engine, jobs, store, HOW))
        assert [sample.stopped_by for sample in sorted(store.samples.values(), key=lambda s: s.item)] == [
            "done",
            "budget:question",
            "done",
        ]


def test_oracle_runs_are_labelled_and_stand_apart() -> None:
    items = toy_items(4)
    how = replace(HOW, scorer=oracle_scorer(items))
    with Store(None, {}) as store:
        found = evaluated(store, how, Design(items, ("single", "self_consistency(n=4)", "best_of_n(n=4)", "step_beam")))
    assert [row["strategy"] for row in found["rows"]] == ["single", "self_consistency(n=4)"]
    assert {row["strategy"] for row in found["oracle"]} == {"best_of_n(n=4)", "step_beam"}
    assert {sample.strategy for sample in store.samples.values() if sample.oracle} == {"step_beam"}
    assert not found["comparisons"], "the others are votes"
    best = next(row for row in found["oracle"] if row["strategy"].startswith("best"))
    assert best["accuracy"] == found["pool"]["curves"][-1]["pass"], "a sound scorer finds what is there"
    quality = found["pool"]["scorer"]["quality"]
    assert quality is None or quality["auc"] == 1.0


def test_settings_name_what_samples_depend_on() -> None:
    with toy_engine() as engine:
        mine = settings(engine, "toy", HOW, DESIGN)
        assert mine == settings(
            engine, "toy", replace(HOW, concurrency=3, scorer=None), replace(DESIGN, items=toy_items(2))
        )
        samplings = [
            Sampling(0.5),
            Sampling(1.2, top_k=1),
            Sampling(1.2, top_p=0.5),
            Sampling(1.2, logit_bias={3: 1.0}),
        ]
        others = [replace(HOW, seed=8), *(replace(HOW, sampling=sampling) for sampling in samplings)]
        assert all(settings(engine, "toy", other, DESIGN) != mine for other in others)
        assert settings(engine, "toy", HOW, replace(DESIGN, items=toy_items(5, tokens=9))) != mine
    assert list(mine) == ["model", "profile", "task", "seed", "temperature", "max_tokens"], "as in files kept so far"


REFUSED = {
    "is no strategy": replace(DESIGN, strategies=("singel",)),
    "needs --samples 4": replace(DESIGN, samples=2),
    "nothing to evaluate": replace(DESIGN, budgets=()),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_carried_out_is_refused_before_anything_runs(words: str) -> None:
    with Store(None, {}) as store, pytest.raises(InvalidRequest, match=words):
        evaluated(store, design=REFUSED[words])
    assert not store.samples


def test_a_strategy_without_its_scorer_is_refused() -> None:
    with Store(None, {}) as store, pytest.raises(InvalidRequest, match="--scorer judge"):
        evaluated(store, replace(HOW, scorer=None))


def test_seeds_differ_by_question_and_draw_alone() -> None:
    assert seed_of(1, "a", 0) == seed_of(1, "a", 0)
    assert len({seed_of(s, i, d) for s in (1, 2) for i in ("a", "b") for d in (0, 1)}) == 8
    assert all(0 <= seed_of(1, "a", d) < 2**53 for d in range(50))


def test_shares_of_time_sum_to_the_time() -> None:
    now = [0.0]
    clock = SharedClock(lambda: now[0])
    first = clock.enter()
    now[0] = 4.0
    second = clock.enter()
    now[0] = 10.0
    assert clock.leave(first) == 4 + 3
    now[0] = 12.0
    assert clock.leave(second) == 3 + 2


def test_no_strategy_sees_the_gold_answer() -> None:
    item = Item("x", Task("Q", toy_items(1)[0].task.answers), gold="424242")
    assert "424242" not in repr(item.task) and not item.task.meta
