"""Hidden states of stored attempts with what became of them: what a probe learns from."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from headrace.engine.surface import Surface
from headrace.reason.evaluation.scoring import end_tokens, fitted
from headrace.reason.evaluation.store import Sample
from headrace.reason.tasks.item import Item
from headrace.spec.errors import InvalidRequest
from headrace.spec.sampling import Stop

Part: TypeAlias = Literal["step", "half", "end"]
"""Where in its attempt a state was read: where a step ends, after half of its tokens, after the last one
that is no end token."""


class Point(NamedTuple):
    """`tokens` of the attempt are there; `whole` of them are whole steps."""

    tokens: int
    whole: int
    part: Part


@dataclass(frozen=True, slots=True)
class Examples:
    """One row a point of an attempt.

    `states` [n, hidden] float32. `labels` [n] float32: what to learn, 1 where all is right so far if the task has a
    checker of steps, else where the attempt's answer will be right. `right` [n] bool: whether it will. `items` [n]:
    the question, `parts` [n]: the place.
    """

    states: np.ndarray
    labels: np.ndarray
    right: np.ndarray
    items: tuple[str, ...]
    parts: tuple[Part, ...]

    @property
    def digest(self) -> str:
        """Ten hex digits of all of it."""
        found = hashlib.sha256(json.dumps([self.items, self.parts]).encode())
        for array in (self.states, self.labels, self.right):
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()[:10]

    def at(self, part: Part) -> np.ndarray:
        """bool [n]"""
        return np.array([one == part for one in self.parts])

    @classmethod
    def joined(cls, found: Iterable[Examples]) -> Examples:
        """Raises InvalidRequest where there is none."""
        parts = list(found)
        if not parts:
            raise InvalidRequest("There is no attempt to learn from; draw some with headrace eval.", "store")
        states, labels, right = (
            np.concatenate([getattr(one, name) for one in parts]) for name in ("states", "labels", "right")
        )
        items, places = (tuple(chain.from_iterable(getattr(one, name) for one in parts)) for name in ("items", "parts"))
        return cls(states, labels, right, items, places)


def points(pieces: Sequence[bytes], step: Stop) -> list[Point]:
    """Where to look at an attempt whose tokens write `pieces`: at the ends of its steps, half-way, at its end."""
    ends, written, begun = list[int](), b"", 0
    for count, piece in enumerate(pieces, 1):
        written += piece
        if count - begun == step.tokens or any(text.encode() in written for text in step.text):
            ends.append(count)
            written, begun = b"", count
    found: dict[int, Part] = {end: "step" for end in ends}
    found |= {(len(pieces) + 1) // 2: "half", len(pieces): "end"}
    return [Point(count, max((e for e in ends if e <= count), default=0), found[count]) for count in sorted(found)]


def readable(samples: Iterable[Sample]) -> list[Sample]:
    """Those that have tokens and an answer that could be checked."""
    return [sample for sample in samples if sample.ids and sample.kind != "timeout"]


async def read_examples(
    engine: Surface,
    items: Mapping[str, Item],
    samples: Sequence[Sample],
    state: str = "hidden:-1",
    concurrency: int = 4,
    report: Callable[[str, int, int], None] | None = None,
) -> Examples:
    """Reads `state` of every attempt with an answer that could be checked. Raises InvalidRequest where there is none.

    `items` by id. Nothing is drawn: the tokens are given, and the states are those of a live attempt, bit for bit.
    """
    asked = readable(samples)
    waiting, found, done = iter(enumerate(asked)), dict[int, Examples](), 0

    async def work() -> None:
        nonlocal done
        for number, sample in waiting:
            found[number] = await _read(engine, items[sample.item], sample, state)
            done += 1
            if report is not None:
                report("states", done, len(asked))

    await asyncio.gather(*(work() for _ in range(min(concurrency, len(asked)))))
    return Examples.joined(found[number] for number in range(len(asked)))


async def _read(engine: Surface, item: Item, sample: Sample, state: str) -> Examples:
    prompt = await asyncio.to_thread(engine.encode, fitted(item.task, engine).prompt())
    tokenizer = engine.tokenizer
    assert tokenizer is not None, "an attempt was drawn from a text"
    drawn = sample.ids[: -1 if sample.ids[-1] in end_tokens(engine) else None] or sample.ids
    pieces = [tokenizer.token_bytes(token) for token in drawn]
    looks = points(pieces, item.task.step)
    async with await engine.open([*prompt, *drawn]) as sequence:
        states = await sequence.read(state, "all")
    right = sample.kind == "right"
    labels = [float(right) if p.part == "end" else _label(item, pieces[: p.whole], right) for p in looks]
    return Examples(
        states[[len(prompt) + point.tokens - 1 for point in looks]],
        np.array(labels, np.float32),
        np.full(len(looks), right),
        (item.id,) * len(looks),
        tuple(point.part for point in looks),
    )


def _label(item: Item, whole: Sequence[bytes], right: bool) -> float:
    if item.so_far is None:
        return float(right)
    return item.so_far(b"".join(whole).decode("utf-8", errors="ignore"))
