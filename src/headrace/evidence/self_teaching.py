"""An adapter of LM-T that says in one token, at any place of an attempt, whether the attempt will be right.

Attempts are drawn with the adapter from their first token on, so that a look shares all of their KV (2410.02725).
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from headrace.adapt.kept import kept
from headrace.adapt.lesson import END, Lesson, Piece
from headrace.adapt.recipe import Lora, Optimiser, Recipe, Source
from headrace.engine.engine import Engine
from headrace.engine.sequence import SequenceHandle
from headrace.evidence.self_evaluation import AT_ONCE, Pair
from headrace.reason.evaluation.filling import seed_of
from headrace.reason.tasks.arith import CHECK, VERDICTS
from headrace.reason.tasks.item import Item
from headrace.spec.sampling import Sampling, Stop

_LINE = re.compile(r"(-?\d+)?([-+]\d+=|Answer: )(-?\d+)")
VERSION = 1
"""Goes up whenever the same settings give other lessons."""
EACH, PLAIN = 4, 0.3
"""Attempts a question, and the share of questions that are asked again at temperature 1."""
KEEP, SLIPS, HALF = 0.2, 0.45, 0.35
"""Shares of lessons on lines and on slips; of the rest, on outcomes, those that are asked half-way."""
RANK, STEPS, BATCH = 16, 850, 64
TARGETS = ("q", "k", "v", "o", "gate", "up", "down")
OPTIMISER = Optimiser(rate=3e-3, warmup=30, final=0.05, decay=0.0)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt. `tokens`: up to its half, which is a whole number of lines, and in all.

    `verdict`: log P(yes) to the one token of the question; `logprob`: the mean over its tokens so far.
    """

    item: str
    question: str
    text: str
    right: bool
    ended: bool
    tokens: tuple[int, int]
    verdict: Pair
    logprob: Pair


def ask(sequence: SequenceHandle, question: str | Sequence[int] = CHECK, length: int | None = None) -> SequenceHandle:
    """A fork that puts the question of one token in place of the last of `length` tokens, and computes that one alone.

    A line break or the end token says nothing that the question does not, and what was drawn last has no KV yet.
    """
    (fork,) = sequence.fork(1, aside=True)
    fork.rewind(replace(fork.mark(), length=(len(sequence) if length is None else length) - 1))
    fork.append(question)
    return fork


async def _verdict(sequence: SequenceHandle, length: int) -> float:
    with ask(sequence, length=length) as fork:
        return (await fork.score(VERDICTS[:1]))[0][0]


def drawn(
    engine: Engine, asked: Sequence[Item], each: int, sampling: Sampling, seed: int, lines: int, adapter: str | None
) -> list[Attempt]:
    """`each` attempts a question, by question and draw, looked at after `lines` lines and at their ends."""

    async def work() -> list[Attempt]:
        gate = asyncio.Semaphore(max(AT_ONCE // each, 1))

        async def one(item: Item) -> list[Attempt]:
            prompt, how = engine.encode(item.task.prompt()), {"seed": seed_of(seed, item.id, 0), "adapter": adapter}
            async with gate, await engine.open(prompt, sampling=replace(sampling, logprobs=0), **how) as root:
                await root.extend(Stop(tokens=0))
                return list(await asyncio.gather(*(_attempt(fork, item, lines) for fork in root.fork(each))))

        return [attempt for found in await asyncio.gather(*(one(item) for item in asked)) for attempt in found]

    return asyncio.run(work())


async def _attempt(sequence: SequenceHandle, item: Item, lines: int) -> Attempt:
    text, logprobs, ended, most = "", list[float](), False, item.task.ending.tokens or 1

    async def extend(stop: Stop) -> None:
        nonlocal text, ended
        step = await sequence.extend(replace(stop, tokens=min(stop.tokens or most, most - len(logprobs))))
        text, ended = text + step.text, step.finish_reason == "stop" and step.stop not in stop.text
        logprobs.extend(entry.logprob for entry in step.logprobs or ())

    async with sequence:
        start = len(sequence)
        while not ended and text.count("\n") < lines and len(logprobs) < most:
            await extend(item.task.step)
        half = len(logprobs) if text.count("\n") == lines else -(-len(logprobs) // 2)
        early = await _verdict(sequence, start + half)
        if not ended:
            await extend(item.task.ending)
        verdicts = Pair(early, await _verdict(sequence, len(sequence)))
    means = Pair(math.fsum(logprobs[:half]) / half, math.fsum(logprobs) / len(logprobs))
    return Attempt(
        item.id, item.task.question, text, is_right(item, text), ended, (half, len(logprobs)), verdicts, means
    )


def is_right(item: Item, text: str) -> bool:
    """By the exact checker of the question."""
    answer = item.task.answers.extract(text)
    return answer is not None and item.verdict(answer) == "right"


# -- what the adapter learns -----------------------------------------------------------------------


def verdict_lesson(attempt: Attempt, lines: int) -> Lesson:
    """Whether the attempt will be right, asked in place of the break behind its first `lines` lines, or of its end."""
    so_far = "\n".join(attempt.text.split("\n")[:lines])
    asked = Piece(attempt.question + so_far, learn=False), Piece(CHECK, learn=False)
    return *asked, Piece(VERDICTS[not attempt.right])


def slip_lesson(attempt: Attempt, rng: Random) -> Lesson:
    """Of a right attempt: asked behind any line, in half of all cases behind one whose result was altered, or later.

    All lines behind the altered one follow from it, so that the slip alone tells.
    """
    lines, altered = attempt.text.split("\n"), rng.random() < 0.5
    at = rng.randrange(len(lines) - 1)
    if altered:
        lines[at:] = _altered(lines[at:], rng.choice((-10, -1, 1, 10)))
    behind = at + 1 if rng.random() < 0.5 else len(lines)
    text = Piece(attempt.question + "\n".join(lines[:behind]), learn=False)
    return text, Piece(CHECK, learn=False), Piece(VERDICTS[altered])


def is_sound(attempt: Attempt) -> bool:
    """Whether all of its lines are calculations and the last its answer, so that a result can be altered."""
    lines = attempt.text.split("\n")
    return len(lines) > 1 and all(_LINE.fullmatch(line) for line in lines)


def _altered(lines: Sequence[str], shift: int) -> list[str]:
    """The first line's result and all that comes of it, the answer too, `shift` off."""
    found = []
    for number, line in enumerate(lines):
        if (parts := _LINE.fullmatch(line)) is None:
            raise ValueError(f"{line!r} is no line of a sum")
        start, operation, end = parts.groups()
        before = "" if start is None else int(start) + (shift if number else 0)
        found.append(f"{before}{operation}{int(end) + shift}")
    return found


def line_lesson(attempt: Attempt, line: int) -> Lesson:
    """The attempt's own line of that number: what the model would say anyhow."""
    lines = attempt.text.split("\n")
    before, last = "".join(f"{one}\n" for one in lines[:line]), line == len(lines) - 1
    after = "\n" if not last else END if attempt.ended else ""
    return Piece(attempt.question + before, learn=False), Piece(lines[line] + after)


@dataclass(frozen=True, slots=True)
class Lessons:
    """Draws lessons. `attempts`: whose outcome is asked for, half-way, behind `lines` lines, and at their ends.

    `sound`: right ones, for slips; `plain`: at temperature 1, whose lines the adapter is to go on saying.
    """

    attempts: Sequence[Attempt]
    sound: Sequence[Attempt]
    plain: Sequence[Attempt]
    lines: int

    @classmethod
    def of(cls, attempts: Sequence[Attempt], plain: Sequence[Attempt], lines: int) -> Lessons:
        return cls(attempts, [attempt for attempt in attempts if attempt.right and is_sound(attempt)], plain, lines)

    def __call__(self, rng: Random) -> Lesson:
        kind = rng.random()
        if kind < KEEP:
            attempt = rng.choice(self.plain)
            return line_lesson(attempt, rng.randrange(attempt.text.count("\n") + 1))
        if self.sound and kind < KEEP + SLIPS:
            return slip_lesson(rng.choice(self.sound), rng)
        attempt, early = rng.choice(self.attempts), rng.random() < HALF
        return verdict_lesson(attempt, self.lines if early else attempt.text.count("\n") + 1)


def recipe_of(base: Path, asked: Sequence[Item], temperature: float, lines: int) -> Recipe:
    """Names everything that decides the adapter: the questions by the first one's id and their number."""
    drawn_from: dict[str, str | int | float] = {"first": asked[0].id, "questions": len(asked), "lines": lines}
    drawn_from |= {"each": EACH, "plain": PLAIN, "temperature": temperature}
    drawn_from |= {"keep": KEEP, "slips": SLIPS, "half": HALF}
    train = Lora(str(base), RANK, 2.0 * RANK, TARGETS)
    return Recipe("verdicts", train, Source("verdicts", VERSION, drawn_from), STEPS, BATCH, 1, 1, OPTIMISER)


def taught(engine: Engine, base: Path, asked: Sequence[Item], temperature: float, lines: int) -> Path:
    """The adapter of the model `base`, which `engine` serves, from the cache or trained now, which takes minutes."""

    def make(folder: Path) -> None:
        from headrace.adapt.lora import train_lora
        from headrace.adapt.report import Lines

        attempts = drawn(engine, asked, EACH, Sampling(temperature=temperature), 5, lines, None)
        plain = drawn(engine, asked[: int(PLAIN * len(asked))], EACH, Sampling(temperature=1.0), 6, lines, None)
        train_lora(recipe, Lessons.of(attempts, plain, lines), folder, Lines("Training the adapter of verdicts"))

    recipe = recipe_of(base, asked, temperature, lines)
    return kept(recipe, make)
