"""The adapter that is asked for its verdict: its lessons say what the checker says, and a look is one token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

pytest.importorskip("torch", reason="an adapter is trained here")

from headrace.adapt.full import train_full
from headrace.adapt.lesson import encode
from headrace.adapt.recipe import Full, Optimiser, Recipe, Source
from headrace.engine.engine import Engine
from headrace.evidence import self_teaching
from headrace.evidence.claims.adaptive_ttc import asked_twice, cost, one_token, sent_again
from headrace.evidence.self_evaluation import Pair
from headrace.evidence.self_teaching import (
    Attempt,
    Lessons,
    drawn,
    is_right,
    is_sound,
    line_lesson,
    slip_lesson,
    taught,
    verdict_lesson,
)
from headrace.reason.tasks.arith import CHECK, VERDICTS, answer_of, problems
from headrace.reason.tasks.fixtures import lessons
from headrace.reason.tasks.item import Item
from headrace.reason.tasks.registry import items
from headrace.spec.options import EngineOptions
from headrace.spec.sampling import Sampling

SOURCE = Source("arith", settings={"words": 0.0, "steps": [2, 2]})
SHAPE = Full(layers=2, hidden=32, heads=1, kv_heads=1, width=32, context=256)
BASE = Recipe("tiny", SHAPE, SOURCE, 150, 16, threads=1, optimiser=Optimiser(rate=1e-2, warmup=10))
TASK, ADAPTER, PLAIN = "arith:sums(steps=2, split='tune')", "adapter", Sampling(temperature=0.8)


def said(text: str, question: str, right: bool, ended: bool = True) -> Attempt:
    return Attempt("one", question, text, right, ended, (1, 2), Pair(0.0, 0.0), Pair(0.0, 0.0))


def written(*lines: str) -> str:
    return "\n".join(lines)


QUESTION = "7+8-3=\n"
GOOD = said("7+8=15\n15-3=12\nAnswer: 12", QUESTION, True)
BAD = said("7+8=14\n14-3=11\nAnswer: 11", QUESTION, False)


def test_a_verdict_is_asked_in_place_of_a_break_and_alone_is_learned() -> None:
    for attempt in (GOOD, BAD):
        for lines in (1, 2, 3, 9):
            *read, verdict = verdict_lesson(attempt, lines)
            assert verdict.text == VERDICTS[attempt is BAD] and verdict.learn and not any(piece.learn for piece in read)
            so_far = "".join(piece.text for piece in read)
            assert so_far == QUESTION + written(*attempt.text.split("\n")[:lines]) + CHECK


def test_an_own_line_is_learned_and_all_before_it_only_read() -> None:
    assert [tuple(piece) for piece in line_lesson(BAD, 1)] == [(QUESTION + "7+8=14\n", False), ("14-3=11\n", True)]
    assert line_lesson(BAD, 2)[1].text == "Answer: 11\x03"
    cut = said("7+8=14\n14-", QUESTION, False, ended=False)
    assert line_lesson(cut, 1)[1].text == "14-", "what a bound cut did not end there"


def holds(line: str) -> bool:
    calculation, result = line.split("=")
    return sum(int(part) for part in calculation.replace("-", "+-").split("+")) == int(result)


def test_a_slip_is_altered_once_and_all_behind_follows_from_it() -> None:
    seen, rng = set(), Random(1)
    for _ in range(200):
        text, question, verdict = slip_lesson(GOOD, rng)
        lines = text.text.removeprefix(QUESTION).split("\n")
        right = lines == GOOD.text.split("\n")[: len(lines)]
        assert question.text == CHECK and verdict.text == VERDICTS[not right]
        slips = [line for line in lines[:2] if not holds(line)]
        assert len(slips) == (not right)
        seen.add((len(lines), right))
    assert seen == {(count, right) for count in (1, 2, 3) for right in (True, False)}
    assert not is_sound(said("7+8=15\nyes\nAnswer: 15", QUESTION, False))


def test_draws_are_of_every_kind_and_place() -> None:
    draw, rng = Lessons.of((GOOD, BAD), (BAD,), lines=2), Random(1)
    assert draw.sound == [GOOD]
    found = [draw(rng) for _ in range(400)]
    asked = [lesson for lesson in found if lesson[-2].text == CHECK]
    assert 0.1 < 1 - len(asked) / 400 < 0.3
    for lines in (1, 2, 3):
        there = [lesson[-1].text for lesson in asked if lesson[0].text.count("\n") == lines]
        assert set(there) == set(VERDICTS)
    ours = [lesson for lesson in asked if lesson[0].text == QUESTION + BAD.text]
    assert ours and {lesson[-1].text for lesson in ours} == {"no"}


class Scene(NamedTuple):
    engine: Engine
    asked: list[Item]
    attempts: list[Attempt]
    folder: Path


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A small model that has learned a little, and its adapter, which learned from its attempts."""
    draw, vocabulary = lessons(SOURCE)
    base, asked = train_full(BASE, draw, vocabulary, tmp_path_factory.mktemp("base") / "model"), items(TASK, 7)
    with pytest.MonkeyPatch.context() as patch, Engine.load(base, EngineOptions(threads=1)) as engine:
        patch.setenv("HEADRACE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(self_teaching, "STEPS", 8)
        patch.setattr(self_teaching, "BATCH", 8)
        folder = taught(engine, base, asked[3:], 0.8, 1)
        engine.add_adapter(ADAPTER, folder)
        yield Scene(engine, asked[:3], drawn(engine, asked[:3], 4, PLAIN, 1, 1, ADAPTER), folder)


def test_labels_are_the_checkers(scene: Scene) -> None:
    drawn_from = problems("sums", 2, 7, split="tune")
    for item, problem in zip(items(TASK, 7), drawn_from, strict=True):
        assert is_right(item, written(*problem.lines))
        assert not is_right(item, written(*problem.lines[:-1], f"Answer: {problem.answer + 10}"))
        assert not is_right(item, "")
    known = {problem.question: problem.answer for problem in drawn_from}
    assert [attempt.item for attempt in scene.attempts] == [item.id for item in scene.asked for _ in range(4)]
    whole = [attempt for attempt in scene.attempts if attempt.text.split("\n")[-1].startswith("Answer: ")]
    assert len(whole) >= 6
    for attempt in whole:
        assert attempt.right == (answer_of(attempt.text) == known[attempt.question])


def test_a_live_look_says_what_a_sequence_of_its_own_says(scene: Scene) -> None:
    engine, ended = scene.engine, [attempt for attempt in scene.attempts if attempt.ended]
    assert len(ended) >= 6
    for attempt in ended:
        tokens = [token for token, _ in encode(engine.tokenizer, verdict_lesson(attempt, 99))][:-1]
        assert len(tokens) == len(engine.encode(attempt.question)) + attempt.tokens[1]
        engine.clear_cache()
        with engine.open_now(tokens, adapter=ADAPTER) as sequence:
            assert sequence.score(VERDICTS[:1]).result()[0][0] == attempt.verdict.end
        with engine.open_now(tokens) as sequence:
            assert sequence.score(VERDICTS[:1]).result()[0][0] != attempt.verdict.end


def test_attempts_are_the_same_whatever_else_runs(scene: Scene) -> None:
    alone = drawn(scene.engine, scene.asked[2:], 4, PLAIN, 1, 1, ADAPTER)
    assert alone == scene.attempts[8:]
    assert drawn(scene.engine, scene.asked[2:], 4, PLAIN, 1, 1, None) != alone


def test_a_look_is_one_position_by_the_engines_count(scene: Scene) -> None:
    engine, prompt = scene.engine, scene.engine.encode(scene.asked[0].task.prompt())
    clause, numbers = cost(engine, prompt, lambda engine, sequence: one_token(sequence), ADAPTER)
    assert clause.status == "passed" and numbers["positions_a_look"] == 1
    for mutant in (asked_twice, sent_again):
        clause, numbers = cost(engine, prompt, mutant, ADAPTER)
        assert clause.status == "failed" and numbers["positions_a_look"] > 1


def test_an_adapter_is_made_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_teaching, "kept", lambda recipe, make: recipe)
    one, other = (self_teaching.taught(scene.engine, Path("m"), items(TASK, n), 0.8, 1) for n in (2, 3))
    assert one.digest != other.digest and scene.folder.name != one.digest
    assert (scene.folder / "adapter_model.safetensors").is_file()
