"""Labelled passages and their search: what may not be read is left out before anything is scored.

BM25 (Robertson and Zaragoza, 2009) in Lucene's variant, by `bm25s` (Lù, arXiv 2407.03618). Word weights depend on the
whole index, so each reading label has an index of its own over exactly the passages that flow to it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.privacy.labels.flow import FlowLabel, FlowLattice, Labelled
from headrace.spec.errors import HeadraceError, InvalidRequest
from headrace.spec.reasoning import Passage


class Library:
    """Passages by label and id: the same id at two labels is two passages, so that adding one tells nothing."""

    def __init__(self, lattice: FlowLattice) -> None:
        self.lattice = lattice
        self._texts: dict[tuple[str, FlowLabel], str] = {}
        self._indexes: dict[FlowLabel, Index] = {}
        self._lock = threading.RLock()

    def add(self, id: str, passage: Labelled[str]) -> None:
        """Adds a passage, or replaces the one of this id and label. Raises InvalidRequest for a foreign label."""
        with self._lock:
            self._texts[id, self.lattice.check(passage.label)] = passage.value
            self._forget(passage.label)

    def remove(self, id: str, label: FlowLabel) -> None:
        """Raises InvalidRequest when there is none."""
        with self._lock:
            if self._texts.pop((id, label), None) is None:
                raise InvalidRequest(
                    f"There is no passage {id!r} at {self.lattice.text(label)}; nothing is left to remove."
                )
            self._forget(label)

    def at(self, label: FlowLabel) -> Reader:
        """A Retriever that reads what flows to `label`; what it finds, or that it found nothing, has that label."""
        return Reader(self, self.lattice.check(label))

    def readable(self, label: FlowLabel) -> list[tuple[str, FlowLabel]]:
        """(id, label) of every passage that flows to `label`, in the order of their names."""
        seen = [key for key in self._texts if self.lattice.leq(key[1], label)]
        return sorted(seen, key=lambda key: (key[0], self.lattice.text(key[1])))

    def find(self, label: FlowLabel, query: str, count: int) -> list[Passage]:
        """At most `count` passages that flow to `label` and share a word with the query, best first."""
        with self._lock:
            index = self._indexes.get(label)
            if index is None:
                keys = self.readable(label)
                index = self._indexes[label] = Index(keys, [words(self._texts[key]) for key in keys])
            found = index.best(words(query), count)
            return [Passage(id, self._texts[id, at], score, {"label": at}) for (id, at), score in found]

    def _forget(self, label: FlowLabel) -> None:
        """Drops the indexes that hold passages of this label, and no other: a rebuild is a thing to be seen."""
        self._indexes = {at: index for at, index in self._indexes.items() if not self.lattice.leq(label, at)}


@dataclass(frozen=True)
class Reader:
    """A `spec.Retriever` at one label."""

    library: Library
    label: FlowLabel

    async def find(self, queries: Sequence[str], count: int) -> list[list[Passage]]:
        """At most `count` passages a query that share a word with it, best first; `meta["label"]` is a passage's own.

        Raises HeadraceError without the package `bm25s`.
        """
        return [self.library.find(self.label, query, count) for query in queries]


class Index:
    """BM25 over `texts`, lists of words; `keys` name them. Equal scores keep the order of the keys."""

    def __init__(self, keys: Sequence[Any], texts: Sequence[list[str]]) -> None:
        self.keys = list(keys)
        self._numbers: dict[str, int] = {}
        ids = [[self._numbers.setdefault(word, len(self._numbers)) for word in text] for text in texts]
        self._scorer: Any = None
        if self._numbers:
            bm25s = _bm25s()
            self._scorer = bm25s.BM25(method="lucene")
            corpus = bm25s.tokenization.Tokenized(ids=ids, vocab=self._numbers)
            self._scorer.index(corpus, create_empty_token=False, show_progress=False)

    def best(self, query: Sequence[str], count: int) -> list[tuple[Any, float]]:
        """(key, score) of the best `count` texts with a score above 0."""
        asked = [self._numbers[word] for word in query if word in self._numbers]
        if self._scorer is None or not asked:
            return []
        scores = self._scorer.get_scores_from_ids(asked)
        order = np.argsort(-scores, kind="stable")[:count]
        return [(self.keys[place], float(scores[place])) for place in order if scores[place] > 0]


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _bm25s() -> Any:
    try:
        import bm25s
    except ImportError as error:
        raise HeadraceError("Searching passages needs bm25s; run: pip install 'headrace[ground]'") from error
    return bm25s
