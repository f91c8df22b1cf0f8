"""ARITH as a task: steps are lines, the checker knows every step, and the verdict is asked on a line of its own."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator

import numpy as np
import pytest

from headrace.adapt.folder import first_weights, settings, spec_of, write_folder
from headrace.adapt.head import auc
from headrace.adapt.recipe import Full, Source
from headrace.engine.engine import Engine
from headrace.reason.solve import Order, solve
from headrace.reason.tasks.arith import Problem, problems
from headrace.reason.tasks.arith_task import LINE, ArithJudge, arith_checker, right_so_far, task_of
from headrace.reason.tasks.fixtures import lessons
from headrace.spec.options import EngineOptions
from headrace.spec.reasoning import Scored

PROBLEM = Problem("sums", "7+8-3=\n", 7, (("+", 8), ("-", 3)))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A model of the fixtures' vocabulary with random weights."""
    _, vocabulary = lessons(Source("arith"))
    config = settings(Full(layers=2, hidden=64, heads=2, kv_heads=2, width=64, context=256), vocabulary)
    weights = first_weights(spec_of(config), seed=1).weights
    folder = tmp_path_factory.mktemp("random")
    write_folder(folder, config, vocabulary, {name: tensor.numpy() for name, tensor in weights.items()})
    with Engine.load(folder, EngineOptions(threads=1)) as engine:
        yield engine


def seen(text: str, problem: Problem = PROBLEM) -> Scored:
    return Scored(problem.question, text, not text.endswith("\n"), None, {"problem": problem})


def test_the_checker_knows_every_step() -> None:
    assert right_so_far(seen("7+8=15\n")) == right_so_far(seen("7+8=15\n15-3=12\nAnswer: 12")) == 1
    assert right_so_far(seen("7+8=16\n")) == right_so_far(seen("7+8=15\n15-3=12\nAnswer: 11")) == 0
    exact = arith_checker()
    assert exact.sound and exact.oracle
    (score,) = asyncio.run(exact.score([seen("7+8=15\n")]))
    assert score.value == 1


def test_noise_makes_a_scorer_of_known_quality() -> None:
    asked = problems("sums", 4, 300)
    texts = ["\n".join([*p.lines[:-1], p.lines[-1] + "0" * (n % 2)]) for n, p in enumerate(asked)]
    labels = np.arange(300) % 2 == 0
    qualities = []
    for noise in (0.0, 2.0, 8.0):
        scores = asyncio.run(arith_checker(noise).score([seen(text, p) for text, p in zip(texts, asked, strict=True)]))
        qualities.append(auc(np.array([score.value for score in scores]), labels))
    assert qualities[0] == 1.0 > qualities[1] > 0.85 > qualities[2] > 0.5


def test_a_step_is_a_line(engine: Engine) -> None:
    with engine.open_now(task_of(PROBLEM).prompt(), seed=1) as sequence:
        step = sequence.extend(task_of(PROBLEM).step).result()
        assert step.text.count("\n") == step.text.endswith("\n") or len(step.token_ids) == LINE


@pytest.mark.parametrize("text", ["7+8=15\n", "7+8=15\n15-3=12\nAnswer: 12"])
def test_the_verdict_is_asked_on_a_line_of_its_own(engine: Engine, text: str) -> None:
    class Node:
        """A live sequence with the verbs that a scorer uses, awaited."""

        def __init__(self, sequence) -> None:
            self.sequence = sequence

        def fork(self, count: int) -> list:
            return [Node(kid) for kid in self.sequence.fork(count)]

        async def append(self, text: str) -> bool:
            await self.sequence.append(text)
            return True

        async def score(self, texts: list[str]) -> list:
            return await self.sequence.score(texts)

        def drop(self) -> None:
            self.sequence.drop()

    async def ask() -> float:
        async with await engine.open(PROBLEM.question + text) as sequence:
            item = Scored(PROBLEM.question, text, not text.endswith("\n"), Node(sequence))
            (score,) = await ArithJudge().score([item])
            return score.value

    asked = PROBLEM.question + text + ("" if text.endswith("\n") else "\n") + "Right? "
    with engine.open_now(asked) as sequence:
        (yes,), (no,) = sequence.score(["yes", "no"]).result()
    assert asyncio.run(ask()) == pytest.approx(1 / (1 + math.exp(no - yes)), abs=1e-6)


@pytest.mark.parametrize("scorer", [ArithJudge(), arith_checker(2.0)], ids=["judge", "checker"])
def test_strategies_run_on_it(engine: Engine, scorer) -> None:
    order = Order("best_of_n(n=3)", scorer=scorer, seed=5)
    result = asyncio.run(solve(engine, task_of(PROBLEM), order))
    assert len(result.candidates) == 3 and all(0 <= c.score <= 1 for c in result.candidates)
    assert result.oracle == scorer.oracle
    engine.check()
