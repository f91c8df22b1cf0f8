"""A probe reads one position of the attempt's own state, at any step, and learns from no question it is judged on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from engine.canary import oracle_hidden
from headrace.adapt.folder import first_weights, settings, spec_of, write_folder
from headrace.adapt.head import Head
from headrace.adapt.recipe import Full, Source
from headrace.engine.engine import Engine
from headrace.reason.evaluate import Design, evaluate
from headrace.reason.evaluation.clock import SharedClock
from headrace.reason.evaluation.filling import How, Job, carried_out
from headrace.reason.evaluation.probing import FOLDS, apart, check_enough, pool_of, questions, recipe_of, train_probe
from headrace.reason.evaluation.states import Examples, points, read_examples
from headrace.reason.evaluation.store import Sample, ScoringKey, Store
from headrace.reason.scorers import probe_folder, scorer_named
from headrace.reason.scorers.probe import Probe
from headrace.reason.tasks.arith import marks, problems
from headrace.reason.tasks.fixtures import lessons
from headrace.reason.tasks.registry import items
from headrace.spec.budget import Budget
from headrace.spec.errors import InvalidRequest, ModelFileError
from headrace.spec.options import EngineOptions
from headrace.spec.reasoning import Score, Scored
from headrace.spec.sampling import Sampling, Stop
from reason.toy import TASK, solved, toy_engine
from reason.toy_items import toy_items

TUNE = "arith:sums(steps=3, split='tune')"
HOW = How(seed=7, sampling=Sampling(temperature=1.2))


def probe(base: str, hidden: int = 2, seed: int = 0) -> Probe:
    row = np.random.default_rng(seed).standard_normal((1, hidden)).astype(np.float32)
    return Probe(Head(((row, np.zeros(1, np.float32)),), base=base))


class Noting(Probe):
    """Keeps what it was shown beside what it said."""

    seen: ClassVar[list[tuple[list[int], float]]] = []

    async def score(self, items: Sequence[Scored]) -> list[Score]:
        found = await Probe.score(self, items)
        for item, one in zip(items, found, strict=True):
            ended = item.sequence.ending == "end"
            self.seen.append((item.sequence.tokens[: -1 if ended else None], one.value))
        return found


@pytest.mark.parametrize("strategy", ["best_of_n(n=3)", "step_beam(width=3)"])
def test_every_score_is_the_heads_word_on_the_last_position_and_costs_that_one(strategy: str) -> None:
    with toy_engine() as engine:
        scorer = Noting(probe(engine.model_name).head)
        scorer.seen.clear()
        result = solved(engine, strategy, scorer=scorer)
    assert len(scorer.seen) >= 3 and result.usage["scorer"] == {"prompt": len(scorer.seen), "completion": 0}
    for tokens, value in scorer.seen:
        assert value == pytest.approx(float(scorer.head(oracle_hidden(tokens))), abs=1e-6)


def test_a_look_that_the_budget_refuses_is_worth_nothing() -> None:
    with toy_engine() as engine:
        prompt = len(engine.encode(TASK.question))
        result = solved(engine, "best_of_n(n=3)", scorer=probe(engine.model_name), budget=Budget(prefill=prompt + 2))
    scores = [candidate.score for candidate in result.candidates]
    assert scores.count(0.0) == 1 and result.usage["prompt"] == prompt + 2


def test_a_later_score_of_a_probe_is_the_live_one() -> None:
    items = toy_items(3)
    with toy_engine() as engine, Store(None, {}) as store:
        scorer = probe(engine.model_name)
        asyncio.run(evaluate(engine, Design(items, ("best_of_n(n=2)",)), replace(HOW, scorer=scorer), store))
        jobs = [Job(item, "best_of_n(n=1)", Budget(), draw, scorer) for item in items for draw in range(2)]
        live = [asyncio.run(carried_out(engine, job, HOW, SharedClock(HOW.clock))) for job in jobs]
        later = [store.scorings[ScoringKey(one.item, one.draw, scorer.name)] for one in live]
    assert [one.score for one in later] == [one.score for one in live] and len({one.score for one in later}) > 3
    assert all((one.scorer_prefill, one.scorer_tokens) == (1, 0) for one in later)


@pytest.mark.parametrize("other", [("another-model", 2), (None, 3)])
def test_the_head_of_another_model_is_refused_before_anything_runs(other: tuple[str | None, int]) -> None:
    with toy_engine() as engine, Store(None, {}) as store:
        scorer = probe(other[0] or engine.model_name, other[1])
        with pytest.raises(InvalidRequest, match="use it with its model, or train another with headrace probe"):
            solved(engine, "best_of_n(n=2)", scorer=scorer)
        with pytest.raises(InvalidRequest, match="use it with its model"):
            asyncio.run(evaluate(engine, Design(toy_items(1), ("single",)), replace(HOW, scorer=scorer), store))
        assert engine.stats()["steps"] == 0 and not store.samples


def test_probes_have_names_and_no_name_is_a_path_for_strangers(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path))
    first, second = (probe("m", seed=seed) for seed in (1, 2))
    for name, one in (("a", first), ("b.2", second)):
        probe_folder(name).mkdir(parents=True)
        one.head.save(probe_folder(name))
    assert [scorer_named(f"probe({name})").name for name in ("a", "b.2")] == [first.name, second.name]
    assert first.name != second.name and first.name == f"probe({first.head.digest})"
    path = tmp_path / "probes" / "a"
    assert scorer_named(f"probe({path})", folders=True).name == first.name
    for name in (f"probe({path})", "probe(../probes/a)", "probe(..)"):
        with pytest.raises(InvalidRequest, match="no name of a probe"):
            scorer_named(name)
    with pytest.raises(ModelFileError, match="There is no probe c; make it with `headrace probe c MODEL --store F"):
        scorer_named("probe(c)")
    with pytest.raises(InvalidRequest, match=r"There is no scorer 'probe\(\)'"):
        scorer_named("probe()")


def test_points_are_ends_of_steps_the_middle_and_the_end() -> None:
    step = Stop(tokens=4, text=("\n\n",))
    pieces = [b"a", b"\n", b"\n", b"b", b"c", b"d", b"e", b"f.\n\ng", b"h", b""]
    assert points(pieces, step) == [(3, 3, "step"), (5, 3, "half"), (7, 7, "step"), (8, 8, "step"), (10, 8, "end")]
    assert points([b"x"], step) == [(1, 0, "end")]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the fixtures' vocabulary with random weights."""
    _, vocabulary = lessons(Source("arith"))
    config = settings(Full(layers=2, hidden=64, heads=2, kv_heads=2, width=64, context=256), vocabulary)
    weights = first_weights(spec_of(config), seed=1).weights
    folder = tmp_path_factory.mktemp("random")
    write_folder(folder, config, vocabulary, {name: tensor.numpy() for name, tensor in weights.items()})
    return folder


@pytest.fixture(scope="module")
def engine(small: Path) -> Iterator[Engine]:
    with Engine.load(small, EngineOptions(threads=1)) as engine:
        yield engine


def test_states_are_those_of_live_attempts_and_labels_those_of_the_checkers(engine: Engine) -> None:
    (item,) = items(TUNE, 1)
    (problem,) = problems("sums", 3, 1, split="tune")
    written = f"{problem.lines[0]}\n{problem.lines[1]}\n1+1=3\nAnswer: 1"
    ids = engine.encode(written)
    (end,) = engine.tokenizer.eos  # type: ignore[union-attr]
    with Store(None, {}) as store:
        asyncio.run(evaluate(engine, Design([item], ("single",), samples=2), HOW, store))
        (drawn, other) = pool_of(store)
    assert (drawn.item, drawn.draw, other.draw) == (item.id, 0, 1)
    found = asyncio.run(read_examples(engine, {item.id: item}, [drawn, replace(drawn, ids=(*ids, end), kind="right")]))
    texts = ([token for token in drawn.ids if token != end], ids)
    places = [points([engine.tokenizer.token_bytes(t) for t in one], item.task.step) for one in texts]  # type: ignore[union-attr]
    assert len(found.items) == len(places[0]) + len(places[1]) == len(found.states)
    prompt = engine.encode(item.task.prompt())
    rows = iter(found.states)
    for one, looks in zip(texts, places, strict=True):
        for point in looks:
            with engine.open_now([*prompt, *one[: point.tokens]]) as sequence:
                assert np.array_equal(sequence.read().result(), next(rows))
    mine = found.labels[len(places[0]) :]
    for point, label in zip(places[1], mine, strict=True):
        text = "".join(engine.tokenizer.token_bytes(t).decode() for t in ids[: point.whole])  # type: ignore[union-attr]
        assert label == (1.0 if point.part == "end" else float(all(marks(problem, text))))
    assert set(mine) == {0.0, 1.0} and found.right.tolist() == [False] * len(places[0]) + [True] * len(mine)


def made_up(count: int = 60, seed: int = 0) -> Examples:
    """Two rows a question; whether it goes right shows in the first number."""
    rng = np.random.default_rng(seed)
    right = rng.random(count) < 0.5
    states = rng.standard_normal((2 * count, 8)).astype(np.float32)
    states[:, 0] += 4 * np.repeat(right, 2)
    parts = ("half", "end") * count
    names = tuple(f"q/{number // 2}" for number in range(2 * count))
    return Examples(states, np.repeat(right, 2).astype(np.float32), np.repeat(right, 2), names, parts)  # type: ignore[arg-type]


def test_a_probe_is_trained_and_judged_on_other_questions(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training needs torch")
    examples = made_up()
    recipe = recipe_of(examples, "base", "hidden:-1", steps=40)
    figures = train_probe(examples, recipe, tmp_path / "probe")
    assert figures["end"]["auc"] > 0.8 and figures["half"]["attempts"] == 60 == figures["questions"]
    loaded = Probe.load(tmp_path / "probe")
    assert (loaded.head.base, loaded.head.state) == ("base", "hidden:-1")
    known = replace(examples, states=np.eye(120, dtype=np.float32)[np.repeat(np.arange(60), 2)])
    blind = train_probe(known, recipe_of(known, "base", "hidden:-1", steps=40), tmp_path / "blind")
    assert blind["end"]["auc"] < 0.6, "who knows only which question it is knows nothing of others"
    with pytest.raises(InvalidRequest, match="2 of the questions are evaluated on, q/3 among them"):
        train_probe(examples, recipe, tmp_path / "never", {"q/3", "q/4", "x"})
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    ("kinds", "questions", "told"),
    [
        ("right wrong " * 4, 4, "A probe needs attempts at 5 questions, better at a hundred, and here are some at 4;"),
        ("", 0, "some at 0"),
        ("right wrong " * 2 + "timeout", 5, "some at 4"),
        ("wrong unparsed wrong wrong budget", 5, "0 of these 5 are right; draw some at an easier task"),
        ("right " * 9, 9, "9 of these 9 are right; draw some at a harder task"),
    ],
)
def test_too_few_attempts_are_refused_by_number(kinds: str, questions: int, told: str) -> None:
    def attempts(kinds: list[str], questions: int) -> list[Sample]:
        named = [f"q/{number % questions}" for number in range(len(kinds))]
        rest = ("attempt", "{}", 0, 0), (None, "", None, 1, 1, 1, 0, 0, 1, 0.0, 0.0, "done", False, False, None, (1,))
        return [Sample(name, *rest[0], kind, *rest[1]) for name, kind in zip(named, kinds, strict=True)]  # type: ignore[arg-type]

    with pytest.raises(InvalidRequest, match=told):
        check_enough(attempts(kinds.split(), questions))
    check_enough(attempts(["right"] * 4 + ["wrong"], 5))


def test_five_questions_are_enough(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training needs torch")
    from headrace.adapt.head_training import held_out

    examples = made_up(FOLDS)
    recipe = recipe_of(examples, "base", "hidden:-1", steps=2)
    assert np.isfinite(held_out(recipe, examples.states, examples.labels, examples.items)).all()
    few = [name.replace("4", "3") for name in examples.items]
    with pytest.raises(InvalidRequest, match="4 questions are too few for 5 folds; give at least 5"):
        held_out(recipe, examples.states, examples.labels, few)


def test_questions_of_an_evaluation_are_known_by_id_and_by_text(engine: Engine, tmp_path: Path) -> None:
    task = "arith:sums(steps=3)"
    asked = items(task, 4)
    belongs = {"model": engine.model_name, "task": task, "seed": 0}
    with Store(tmp_path / "s.jsonl", belongs) as store:
        asyncio.run(evaluate(engine, Design(asked[1:3], ("single",)), HOW, store))
        evaluated = questions(Store.load(tmp_path / "s.jsonl"))
    assert list(evaluated) == [asked[1].id, asked[2].id]
    renamed = {f"other/{number}": replace(item, id=f"other/{number}") for number, item in enumerate(asked)}
    assert list(apart({item.id: item for item in asked}, evaluated.values())) == [asked[0].id, asked[3].id]
    assert list(apart(renamed, evaluated.values())) == ["other/0", "other/3"]
    path = tmp_path / "notes.txt"
    path.write_text("dear diary\n")
    with pytest.raises(InvalidRequest, match="no store"):
        Store.load(path)
