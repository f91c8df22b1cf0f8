"""The model as its own judge: the probability of yes against no after one question."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.reason.together import together
from headrace.spec.reasoning import Score, Scored, ScorerKind

QUESTION = "\n\nIs the reasoning above correct so far? Answer yes or no:"


@dataclass(frozen=True, slots=True)
class Judge:
    """P(yes) / (P(yes) + P(no)) on a fork of the attempt, whose pages it shares; it costs the question's tokens.

    Uncalibrated: a small model's yes is often no more than a habit. Its AUC stands beside every table.
    """

    question: str = QUESTION
    yes: str = " yes"
    no: str = " no"
    name: str = "judge"
    kind: ScorerKind = "judge"
    sound: bool = False
    oracle: bool = False

    async def score(self, items: Sequence[Scored]) -> list[Score]:
        return await together(self._one(item) for item in items)

    async def _one(self, item: Scored) -> Score:
        (look,) = item.sequence.fork(1)
        try:
            if not await look.append(self.question):
                return Score(0.0)
            found = await look.score([self.yes, self.no])
        finally:
            look.drop()
        if found is None:
            return Score(0.0)
        yes, no = (math.fsum(logprobs) for logprobs in found)
        return Score(1 / (1 + math.exp(min(no - yes, 700.0))))
