"""P3 on the strategy itself: over an engine whose every text can be enumerated, its evidence is unbiased."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from statistics import fmean, stdev

import numpy as np
import pytest

from engine.canary import CanaryExecutor, oracle_logits
from headrace.engine.engine import Engine
from headrace.reason.population import Population
from headrace.reason.resample import METHODS
from headrace.reason.smc import Target
from headrace.reason.solve import solve
from headrace.reason.strategies import particles
from headrace.spec.batch import Batch
from headrace.spec.options import EngineOptions
from headrace.spec.reasoning import Score
from headrace.spec.sampling import Sampling, Stop
from reason.toy import ORDER, TASK, LetterTokenizer

FEW, LONGEST = 4, 4
"""Tokens 0 to 3 are drawn and no other; 0 ends a text, as its fourth token does."""
SHORT = replace(TASK, step=Stop(tokens=1), ending=Stop(tokens=LONGEST))
TOKENIZER = LetterTokenizer()


class FewTokens(CanaryExecutor):
    """Gives no other than the first tokens a chance."""

    def submit(self, batch: Batch) -> FewTokens:
        super().submit(batch)
        self._result.logits[:, FEW:] = -1e4
        return self


class Reward:
    """A reward that goes up and down along every text."""

    name, kind, sound, oracle = "reward", "outcome", False, False

    async def score(self, items) -> list[Score]:
        return [Score(reward(item.text)) for item in items]


def reward(text: str) -> float:
    return (1 + 3 * (sum(map(ord, text)) + 2 * len(text)) % 7) / 8


def exact_evidence(target: Target) -> float:
    """The sum over all texts of p(y) r(y), or of p(y) times the scores of all steps."""
    prompt = TOKENIZER.encode(TASK.question)

    def branch(drawn: list[int], product: float) -> float:
        text = b"".join(map(TOKENIZER.token_bytes, drawn)).decode()
        product *= reward(text) if drawn else 1.0
        if drawn and (drawn[-1] == 0 or len(drawn) == LONGEST):
            return reward(text) if target == "outcome" else product
        logits = oracle_logits(prompt + drawn)[:FEW].astype(np.float64)
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        return sum(float(share) * branch([*drawn, token], product) for token, share in enumerate(shares))

    return branch([], 1.0)


def z_score(target: Target, method: str, runs: int, n: int = 4) -> tuple[float, int]:
    """Of the mean evidence over seeds against the exact one; and how often particles were resampled."""
    engine = Engine(FewTokens(400), TOKENIZER, EngineOptions())  # type: ignore[arg-type]
    order = replace(ORDER, strategy=f"smc(n={n}, target={target!r}, method={method!r}, threshold=0.9)", scorer=Reward())
    order = replace(order, sampling=Sampling(temperature=1.0))

    async def everything() -> list:
        return [await solve(engine, SHORT, replace(order, seed=seed)) for seed in range(runs)]

    with engine:
        results = asyncio.run(everything())
        engine.check()
    found = [math.exp(list(result.trace.of("weighted"))[-1].data["log_evidence"]) for result in results]
    resampled = sum(len(list(result.trace.of("resampled"))) for result in results)
    return (fmean(found) - exact_evidence(target)) / (stdev(found) / math.sqrt(runs)), resampled


@pytest.mark.parametrize("target", ["outcome", "product"])
def test_the_strategys_evidence_is_unbiased(target: Target) -> None:
    score, resampled = z_score(target, "systematic", 150)
    assert abs(score) < 4 and resampled > 50


def test_a_resampling_that_forgets_the_evidence_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = particles._resampled
    monkeypatch.setattr(particles, "_resampled", lambda *how: Population.even(right(*how).particles))
    assert abs(z_score("outcome", "systematic", 150)[0]) > 6


@pytest.mark.prove
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", ["outcome", "product"])
def test_the_strategys_evidence_is_unbiased_full(target: Target, method: str, figures: dict) -> None:
    score, resampled = z_score(target, method, 1000)
    figures[f"{target}, {method}"] = {"z": score, "resampled": resampled}
    assert abs(score) < 4 and resampled > 1000
