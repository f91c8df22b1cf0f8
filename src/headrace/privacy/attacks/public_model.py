"""What whoever holds the public weights computes about a prompt: states of candidate tokens, and their likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from headrace.privacy.split.cut import Cut, before, check_depth
from headrace.privacy.split.piece import Backend, Piece
from headrace.privacy.statistics import log_softmax
from headrace.spec.batch import PageCopy
from headrace.spec.executor import WeightStore
from headrace.spec.model import PAGE_TOKENS, ModelSpec


class PublicBlocks:
    """The first `depth` blocks, run over candidates for the next token, `batch` of them at a time."""

    def __init__(
        self, spec: ModelSpec, weights: WeightStore, depth: int, context: int = 256, batch: int = 64,
        threads: int | None = None, backend: Backend = "reference",
    ) -> None:  # fmt: skip
        check_depth(spec, depth)
        cut = before(spec, weights, depth)
        self.vocab = spec.vocab
        self._piece = Piece(cut, context=context, threads=threads, rows=batch, spare=batch, backend=backend)
        self._read = len(cut.spec.layers) if depth else 0
        self._prefix: list[int] = []

    def states(self, tokens: Sequence[int]) -> np.ndarray:
        """The states of a text, float32 [n, hidden]."""
        self._prefix = list(tokens)
        return self._piece.states(0, 0, tokens, self._read)

    def __call__(self, prefix: Sequence[int], ids: np.ndarray) -> np.ndarray:
        """The state of each candidate behind the prefix, float32 [ids, hidden]."""
        if not len(prefix):
            return self._first[ids]
        self._hold(prefix)
        return self._behind(len(prefix), ids)

    def vocabulary(self, prefix: Sequence[int]) -> np.ndarray:
        """The state of every token behind the prefix, float32 [vocab, hidden]."""
        return self(prefix, np.arange(self.vocab))

    @cached_property
    def _first(self) -> np.ndarray:
        """Of every token at position 0, where nothing else enters: float32 [vocab, hidden]."""
        return self._behind(0, np.arange(self.vocab))

    def _hold(self, prefix: Sequence[int]) -> None:
        known = agreed(self._prefix, prefix)
        if known < len(prefix):
            self._piece.states(0, known, prefix[known:], self._read)
        self._prefix = list(prefix)

    def _behind(self, position: int, ids: np.ndarray) -> np.ndarray:
        size = self._piece.rows
        return np.concatenate([self._step(position, ids[at : at + size]) for at in range(0, len(ids), size)])

    def _step(self, position: int, ids: np.ndarray) -> np.ndarray:
        """Each candidate writes its keys to a copy of the prefix's last page."""
        piece, pages = self._piece, self._piece.spare[: len(ids)]
        rows = [
            piece.row(0, position, (int(token),), (self._read,), last_page=page)
            for token, page in zip(ids, pages, strict=True)
        ]
        copies = [
            PageCopy(group, position // PAGE_TOKENS, page)
            for group in range(piece.groups)
            for page in (pages if position % PAGE_TOKENS else ())
        ]
        return np.concatenate(piece.submit(rows, copies))

    def close(self) -> None:
        self._piece.close()


class NextToken:
    """The whole public model as a prior: log-probabilities of the token behind a prefix."""

    def __init__(self, spec: ModelSpec, weights: WeightStore, context: int = 256, threads: int | None = None) -> None:
        self.vocab = spec.vocab
        self._piece = Piece(Cut(spec, weights), context=context, threads=threads, rows=32, logits=32)
        self._prefix: list[int] = []

    def __call__(self, prefix: Sequence[int]) -> np.ndarray:
        """float64 [vocab]; at the beginning every token is as likely."""
        if not len(prefix):
            return np.full(self.vocab, -np.log(self.vocab))
        known = min(agreed(self._prefix, prefix), len(prefix) - 1)
        logits = self._piece.logits(0, known, prefix[known:])[-1]
        self._prefix = list(prefix)
        return log_softmax(logits)

    def close(self) -> None:
        self._piece.close()


def agreed(one: Sequence[int], two: Sequence[int]) -> int:
    """How many tokens two texts begin with alike."""
    return next((at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
