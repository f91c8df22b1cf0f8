"""P6: with an exact value of every beginning, each search finds what trying everything finds."""

from __future__ import annotations

import functools
import math
from random import Random

import pytest

from engine.canary import VOCAB, oracle_logits
from headrace.reason.answers import Text
from headrace.reason.task import Task
from headrace.spec.reasoning import Score
from headrace.spec.sampling import Sampling, Stop
from reason.toy import solved, toy_engine

BRANCH = 4
HOT = Sampling(temperature=100.0, top_k=BRANCH)
"""Nearly even over the four likeliest tokens of every place."""


class ExactValue:
    """The value of a whole attempt is its reward; of a beginning, the best reward that it can still reach."""

    name, kind, sound, oracle = "exact value", "exact", False, True

    def __init__(self, prompt: list[int], depth: int) -> None:
        self._prompt, self._depth = prompt, depth
        self.value = functools.cache(self._value)

    def reward(self, drawn: tuple[int, ...]) -> float:
        return float(oracle_logits([*drawn, 1])[5] + 10) / 20

    def _value(self, drawn: tuple[int, ...]) -> float:
        if len(drawn) == self._depth or 0 in drawn:
            return self.reward(drawn)
        logits = oracle_logits([*self._prompt, *drawn])
        likely = sorted(range(VOCAB), key=lambda token: -logits[token])[:BRANCH]
        return max(self.value((*drawn, token)) for token in likely)

    async def score(self, items) -> list[Score]:
        return [Score(self.value(tuple(item.sequence.tokens[item.sequence.prompt :]))) for item in items]


@pytest.mark.parametrize("depth", [3, pytest.param(6, marks=pytest.mark.prove)])
@pytest.mark.parametrize(
    "strategy",
    [
        "step_best_of_n(n=32)",
        "step_beam(width=64, expand=32)",
        "dvts(width=64, expand=32)",
        "tree_of_thought(branch=32, breadth=2)",
        "mcts(simulations=40, expand=32, c=0.05)",
        "rebase(width=96, temperature=0.01)",
    ],
)
def test_a_search_with_an_exact_value_finds_the_optimum(strategy: str, depth: int) -> None:
    task = Task("12+7", Text(), step=Stop(tokens=1), ending=Stop(tokens=depth), chat=False)
    for seed in range(3):
        with toy_engine(pages=3000) as engine:
            scorer = ExactValue(engine.encode(task.question), depth)
            result = solved(engine, strategy, task, scorer=scorer, sampling=HOT, seed=seed)
            best = max(result.candidates, key=lambda candidate: candidate.score)
            assert best.score == pytest.approx(scorer.value(())), (seed, len(result.candidates))
            assert result.oracle


def test_a_prior_is_the_mean_probability_of_its_step() -> None:
    """Recomputed from the trace: exp of the mean log-probability of what the child drew."""
    task = Task("12+7", Text(), step=Stop(tokens=3), ending=Stop(tokens=9), chat=False)
    with toy_engine() as engine:
        trace = solved(engine, "mcts(simulations=3)", task, sampling=Sampling(temperature=1.0)).trace
    drawn = {event.node: event.data["logprobs"] for event in trace.of("extend") if event.data["logprobs"]}
    priors = [event.data["priors"] for event in trace.of("expanded")]
    assert len(priors) == 3
    for found in priors:
        for node, prior in found.items():
            assert prior == pytest.approx(math.exp(sum(drawn[node]) / len(drawn[node]))) and 0 < prior < 1


class Shuffled(ExactValue):
    """Values that mean nothing; `rewards` are those of the whole attempts that it saw."""

    def __init__(self, prompt: list[int], depth: int, seed: int) -> None:
        super().__init__(prompt, depth)
        self.seed = seed
        self.rewards: dict[str, float] = {}

    async def score(self, items) -> list[Score]:
        for item in items:
            drawn = tuple(item.sequence.tokens[item.sequence.prompt :])
            self.rewards[item.text] = self.value(drawn)
        return [Score(Random(f"{self.seed}/{item.text}").random()) for item in items]


def test_with_a_shuffled_value_the_optimum_is_missed() -> None:
    """The check above can fail: the same search on values that mean nothing."""
    task = Task("12+7", Text(), step=Stop(tokens=1), ending=Stop(tokens=5), chat=False)
    missed = 0
    for seed in range(6):
        with toy_engine(pages=3000) as engine:
            scorer = Shuffled(engine.encode(task.question), 5, seed)
            result = solved(engine, "step_best_of_n(n=8)", task, scorer=scorer, sampling=HOT, seed=seed)
            missed += scorer.rewards[result.text] < scorer.value(())
    assert missed >= 4
