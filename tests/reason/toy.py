"""A toy engine whose text is digits, signs and lines, and a scorer that depends on nothing but the text."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace

from engine.canary import VOCAB, CanaryExecutor
from headrace.engine.engine import Engine
from headrace.reason.answers import Number
from headrace.reason.solve import Order, Result, solve
from headrace.reason.strategy import Strategy, strategies
from headrace.reason.task import Task
from headrace.spec.options import EngineOptions
from headrace.spec.reasoning import Score
from headrace.spec.sampling import Sampling, Stop

LETTERS = "0123456789+-= \n\nabcdef#"
"""Token 0 ends a text; token i > 0 writes LETTERS[i - 1]. The line's end comes twice, so that steps are short."""
assert len(LETTERS) == VOCAB - 1


class LetterTokenizer:
    eos = (0,)
    chat_template = None

    def encode(self, text: str, special: bool = True, bos: bool = True) -> list[int]:
        return [1 + (LETTERS.index(letter) if letter in LETTERS else ord(letter) % 23) for letter in text]

    def token_bytes(self, token: int) -> bytes:
        return LETTERS[token - 1].encode() if token else b""


class TextScorer:
    name, kind, sound, oracle = "text", "outcome", False, False

    async def score(self, items) -> list[Score]:
        return [Score(hashlib.sha256(item.text.encode()).digest()[0] / 255) for item in items]


TASK = Task(
    "7 + 5 = ?",
    Number(),
    step=Stop(tokens=6, text=("\n",), include=True),
    ending=Stop(tokens=40),
    chat=False,
)
ORDER = Order(sampling=Sampling(temperature=1.2), scorer=TextScorer(), seed=11)


def toy_engine(pages: int = 400, **how) -> Engine:
    executor = CanaryExecutor(pages, **how)
    return Engine(executor, LetterTokenizer(), EngineOptions())  # type: ignore[arg-type]


def solved(engine: Engine, strategy: str, task: Task = TASK, **how) -> Result:
    return asyncio.run(solve(engine, task, replace(ORDER, strategy=strategy, **how)))


def usable() -> dict[str, Strategy]:
    """Strategies that need nothing but a scorer."""
    return {name: found for name, found in strategies().items() if found.needs <= {"scorer"}}
