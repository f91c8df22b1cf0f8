"""A model whose every probability is known: a function from the text so far to the chances of the next character."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from headrace.engine.engine import Engine
from headrace.evidence.stage import Stage
from headrace.reason.tasks.arith import ANSWER, apply, line
from headrace.spec.batch import Batch, Row
from headrace.spec.executor import Guarantees, Limits, StepResult
from headrace.spec.model import PAGE_TOKENS, Attention, Layer, Mlp, ModelSpec, Norm
from headrace.spec.options import EngineOptions

VOCAB = 128
END = "\0"
NEVER = -60.0
"""The logit of characters that have no chance."""

Chances: TypeAlias = Callable[[str], Mapping[str, float]]
"""The text so far to the next character's probabilities, END among them."""


class AsciiTokenizer:
    """A character is its own token; 0 ends."""

    eos = (0,)
    chat_template = None

    def encode(self, text: str, special: bool = True, bos: bool = True) -> list[int]:
        return [min(ord(letter), VOCAB - 1) for letter in text]

    def token_bytes(self, token: int) -> bytes:
        return bytes([token]) if token else b""


class ScriptedExecutor:
    """Keeps the text in the pages and reads it from there, so that a lost or wrongly shared page changes its words."""

    def __init__(self, chances: Chances, pages: int = 800, context: int = 2048) -> None:
        layer = Layer(Attention(1, 1, 2, 1.0), Mlp(2), Norm())
        self.spec = ModelSpec("llama", 2, VOCAB, context, (layer,), eos=(0,))
        self.limits = Limits((pages,), 256, 64)
        self.guarantees = Guarantees("scripted", "exact", True)
        self._pages = np.zeros((pages, PAGE_TOKENS), np.int64)
        self._chances = chances

    def submit(self, batch: Batch) -> _Ready:
        for copy in batch.copies:
            self._pages[copy.target] = self._pages[copy.source]
        logits: list[np.ndarray] = []
        for row in batch.rows:
            text = self._text(row)
            if row.logits_from is not None:
                ends = range(row.start + row.logits_from + 1, row.start + len(row.tokens) + 1)
                logits += [self._logits(text[:end]) for end in ends]
        return _Ready(StepResult(np.stack(logits) if logits else np.zeros((0, VOCAB), np.float32)))

    def close(self) -> None:
        """Nothing to free."""

    def _text(self, row: Row) -> str:
        table = row.pages[0]
        for position, token in enumerate(row.tokens, row.start):
            self._pages[table[position // PAGE_TOKENS], position % PAGE_TOKENS] = token
        end = row.start + len(row.tokens)
        return "".join(chr(self._pages[table[p // PAGE_TOKENS], p % PAGE_TOKENS]) for p in range(end))

    def _logits(self, text: str) -> np.ndarray:
        logits = np.full(VOCAB, NEVER, np.float32)
        for letter, chance in self._chances(text).items():
            logits[ord(letter)] = math.log(chance)
        return logits


class _Ready:
    def __init__(self, value: StepResult) -> None:
        self._value = value

    def result(self) -> StepResult:
        return self._value


def says(*replies: tuple[str, str]) -> Chances:
    """After the last place of the first cue that the text has, its reply and then the end; else the end at once."""

    def chances(text: str) -> Mapping[str, float]:
        for cue, reply in replies:
            _, found, tail = text.rpartition(cue)
            if found and reply.startswith(tail):
                return {reply[len(tail)] if len(tail) < len(reply) else END: 1.0}
        return {END: 1.0}

    return chances


def among(replies: Mapping[str, float], said: str) -> Mapping[str, float]:
    """What comes after `said` where the whole is one of the replies, each with its weight, and then the end."""
    found: dict[str, float] = {}
    for reply, weight in replies.items():
        if weight and reply.startswith(said):
            letter = reply[len(said)] if len(said) < len(reply) else END
            found[letter] = found.get(letter, 0.0) + weight
    whole = sum(found.values())
    return {letter: weight / whole for letter, weight in found.items()} or {END: 1.0}


def adder(slip: float) -> Chances:
    """Answers the running sums of ARITH a line a step, and at each is one off with the chance `slip`."""

    def chances(text: str) -> Mapping[str, float]:
        question, _, solution = text.partition("\n")
        start, *operations = re.findall(r"[+-]?\d+", question)
        *lines, said = solution.split("\n")
        value = int(lines[-1].partition("=")[2]) if lines else int(start)
        if len(lines) >= len(operations):
            return among({f"{ANSWER}{value}": 1.0}, said)
        operation = operations[len(lines)][0], int(operations[len(lines)][1:])
        right = apply(value, operation)
        good, bad = (line(value, operation, after) + "\n" for after in (right, right + 1))
        return among({good: 1 - slip, bad: slip}, said)

    return chances


def scripted_engine(chances: Chances, **how: Any) -> Engine:
    return Engine(ScriptedExecutor(chances, **how), AsciiTokenizer(), EngineOptions(), name="scripted")  # type: ignore[arg-type]


def scripted_stage(chances: Chances, **how: Any) -> Stage:
    return Stage(ScriptedExecutor(chances, **how), AsciiTokenizer(), "a script")  # type: ignore[arg-type]
