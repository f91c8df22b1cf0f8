"""Log-probabilities of whole documents, token by token, by the engine's verb `score`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TypeAlias

import numpy as np

from headrace.engine.surface import Surface
from headrace.spec.errors import InvalidRequest

LONGEST, SHORTEST = 512, 4
"""Tokens of a document: what is longer is cut, what is shorter is refused."""

Document: TypeAlias = tuple[int, ...]
"""Its token ids."""


class Likelihood:
    """What one model, or one adapter of it, makes of documents; each is computed once."""

    def __init__(self, engine: Surface, adapter: str | None = None) -> None:
        self.engine, self.adapter = engine, adapter
        self._known: dict[Document, np.ndarray] = {}

    def __call__(self, documents: Sequence[Document]) -> list[np.ndarray]:
        """Natural log-probabilities of every token after the first: float64 [tokens - 1] each."""
        wanted = [document for document in dict.fromkeys(documents) if document not in self._known]
        size = self.engine.options.queue
        for start in range(0, len(wanted), size):
            some = wanted[start : start + size]
            self._known |= dict(zip(some, self._score(some), strict=True))
        return [self._known[document] for document in documents]

    def after(self, prefix: Document, endings: Sequence[Document]) -> list[np.ndarray]:
        """Those of the tokens of each ending after one prefix."""
        with self.engine.open_now(prefix, adapter=self.adapter) as sequence:
            return [np.array(found) for found in sequence.score(endings).result()]

    def _score(self, documents: Sequence[Document]) -> list[np.ndarray]:
        with ExitStack() as opened:
            answers = []
            for document in documents:
                sequence = opened.enter_context(self.engine.open_now(document[:1], adapter=self.adapter))
                answers.append(sequence.score([document[1:]]))
            return [np.array(answer.result()[0]) for answer in answers]


def encoded(engine: Surface, texts: Sequence[str]) -> list[Document]:
    """Raises InvalidRequest for a text of fewer than four tokens."""
    found = []
    for text in texts:
        document = tuple(engine.encode(text)[: min(LONGEST, engine.context)])
        if len(document) < SHORTEST:
            raise InvalidRequest(f"The document {text[:40]!r} has under {SHORTEST} tokens; leave it out.", "documents")
        found.append(document)
    return found
