"""Worked examples: solved by the model itself, kept only where its answer was right, found again by likeness."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from headrace.reason.choices import Options
from headrace.spec.errors import InvalidRequest

Embed: TypeAlias = Callable[[Sequence[str]], np.ndarray]
"""Texts to unit vectors: float [n, width]. `LLM.embed` of an encoder is one."""


@dataclass(frozen=True, slots=True)
class Worked:
    """An example with its right letter and the chain of thought by which the model came to it."""

    stem: str
    options: tuple[str, ...]
    answer: str
    chain: str

    @property
    def question(self) -> str:
        return Options(self.stem, self.options).text()


class Examples:
    """Worked examples that are found by cosine similarity of their stems, by `embed` or as bags of words."""

    def __init__(self, items: Sequence[Worked], embed: Embed | None = None) -> None:
        self.items = tuple(items)
        self._embed: Embed = embed or Bag([item.stem for item in items])
        self._vectors = self._embed([item.stem for item in items]) if items else np.zeros((0, 1), np.float32)

    def nearest(self, stem: str, count: int) -> list[Worked]:
        """The `count` most similar, the most similar last, next to the question; ties by their order."""
        if not self.items:
            return []
        likeness = self._vectors @ self._embed([stem])[0]
        best = np.argsort(-likeness, kind="stable")[:count]
        return [self.items[int(index)] for index in reversed(best)]

    def save(self, path: Path) -> None:
        path.write_text("".join(json.dumps(asdict(item)) + "\n" for item in self.items), encoding="utf-8")

    @classmethod
    def load(cls, path: Path, embed: Embed | None = None) -> Examples:
        """Raises InvalidRequest for a file that holds something else."""
        try:
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            return cls([Worked(**{**line, "options": tuple(line["options"])}) for line in lines], embed)
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidRequest(f"{path} holds no worked examples ({error}); make them anew.", "examples") from error


class Bag:
    """Words weighted by how few of the known texts have them (tf-idf), as unit vectors over the known words."""

    def __init__(self, known: Sequence[str]) -> None:
        seen = Counter(word for text in known for word in set(_words(text)))
        self._place = {word: place for place, word in enumerate(sorted(seen))}
        self._rarity = {word: math.log((1 + len(known)) / (1 + count)) + 1 for word, count in seen.items()}

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        found = np.zeros((len(texts), max(len(self._place), 1)), np.float32)
        for row, text in zip(found, texts, strict=True):
            for word, count in Counter(_words(text)).items():
                if word in self._place:
                    row[self._place[word]] = count * self._rarity[word]
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
