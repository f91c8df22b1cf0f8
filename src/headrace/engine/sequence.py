"""The sequence verbs: the only way anything touches the engine.

A handle owns its tokens. Its pages belong to the engine, which may take them while the handle is idle
and recomputes them, bit for bit, when the next verb needs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, get_args

import numpy as np

from headrace.engine.answer import Answer, Extension, ready
from headrace.engine.sampling import NoiseKey, TokenLogprob
from headrace.engine.tasks import Pool
from headrace.spec.errors import ContextExceeded, InvalidRequest, SequenceBusy, SequenceClosed
from headrace.spec.sampling import Sampling, Stop

if TYPE_CHECKING:
    from headrace.engine.surface import Surface


ASIDE = -1
"""The fork index of forks that do not count."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A place to come back to: a length, and the state of the noise path there."""

    sequence: int
    length: int
    branch: int
    forks: int


@dataclass(frozen=True, slots=True)
class Place:
    """Which noise a sequence draws next: `open(tokens, place=handle.place)` goes on exactly as `handle` would."""

    seed: int
    path: tuple[int, ...] = (0,)
    branches: int = 0
    forks: int = 0


class SequenceHandle:
    """A live sequence. Verbs return at once; what goes wrong later surfaces at the next await or verb.

    Any verb but `drop` raises SequenceBusy while an extend is unfinished, SequenceClosed after `drop`.
    """

    def __init__(
        self,
        engine: Surface,
        id: int,
        tokens: list[int],
        prompt: int,
        place: Place,
        sampling: Sampling,
        tree: int | None = None,
        adapter: str | None = None,
        adapter_scale: float = 1.0,
    ) -> None:
        self.id = id
        self.seed = place.seed
        self.sampling = sampling
        self.adapter, self.adapter_scale = adapter, adapter_scale
        self.prompt_tokens = prompt
        self.tree = id if tree is None else tree
        """Id of the sequence that this one was forked from first of all."""
        self.value = 0.0
        """Where pages run short, the least valuable sequence of a tree gives up its own first."""
        self._engine = engine
        self._tokens = tokens
        self._path = place.path
        self._branches = place.branches
        self._forks = place.forks
        self._extension: Extension | None = None
        self._failure: Future[None] | None = None
        self._closed = False

    @property
    def tokens(self) -> list[int]:
        """All tokens the sequence owns, those of a finished extend included."""
        self._collect()
        return list(self._tokens)

    @property
    def place(self) -> Place:
        return Place(self.seed, self._path, self._branches, self._forks)

    def __len__(self) -> int:
        self._collect()
        return len(self._tokens)

    # -- verbs -------------------------------------------------------------------------------------

    def extend(self, stop: Stop | None = None, sampling: Sampling | None = None) -> Extension:
        """Generates until `stop`, the model's end token, or the context. Raises ContextExceeded, Overloaded."""
        self._ready()
        stop, sampling = stop or Stop(), sampling or self.sampling
        wanted = self._engine.context if stop.tokens is None else stop.tokens
        if wanted > 0 and len(self._tokens) >= self._engine.context:
            raise ContextExceeded(
                f"The sequence has {len(self._tokens)} tokens and the context is {self._engine.context}, "
                f"which leaves no room for a new one; {self._engine._more_context()}."
            )
        most = min(len(self._tokens) + wanted, self._engine.context)
        noise = NoiseKey(self.seed, self._path)
        self._extension = self._engine._extend(self, list(self._tokens), stop, sampling, noise, most)
        return self._extension

    def append(self, tokens: str | Sequence[int]) -> Answer[None]:
        """Forces tokens: a tool's output, a probe. Raises ContextExceeded and leaves the sequence as it was."""
        self._ready()
        ids = self._engine._encode_piece(tokens)
        self._engine._check_length(len(self._tokens) + len(ids))
        self._engine._append(self, ids)
        self._tokens += ids
        return ready(None)

    def fork(self, count: int = 1, aside: bool = False) -> list[SequenceHandle]:
        """`count` sequences with the same tokens and shared pages; each draws noise of its own.

        `aside`: for a look only. Such forks leave no mark on what later ones draw, and all draw the same.
        """
        self._ready()
        kids = []
        for _ in range(count):
            path = (*self._path, ASIDE if aside else self._forks, 0)
            self._forks += not aside
            kids.append(self._engine._fork(self, list(self._tokens), path))
        return kids

    def mark(self) -> Mark:
        self._ready()
        return Mark(self.id, len(self._tokens), self._path[-1], self._forks)

    def rewind(self, mark: Mark, replay: bool = False) -> None:
        """Goes back to a mark on a new branch, so that the next draw differs; `replay` repeats the old one."""
        self._ready()
        if mark.sequence != self.id or mark.length > len(self._tokens):
            raise InvalidRequest("The mark is not behind this sequence's end; take a mark of this sequence.", "mark")
        self._engine._truncate(self, mark, replay)
        if replay:
            self._path, self._forks = (*self._path[:-1], mark.branch), mark.forks
        else:
            self._branches += 1
            self._path = (*self._path[:-1], self._branches)
        del self._tokens[mark.length :]

    def score(self, texts: Sequence[str | Sequence[int]]) -> Answer[list[list[float]]]:
        """Natural log-probabilities of every token of each continuation; leaves the sequence unchanged."""
        self._ready()
        pieces = [self._engine._encode_piece(text) for text in texts]
        for piece in pieces:
            self._engine._check_length(len(self._tokens) + len(piece))
        return self._engine._score(self, len(self._tokens), pieces)

    def read(self, what: str = "hidden:-1", pool: Pool = "last") -> Answer[np.ndarray]:
        """Hidden states in float32: [hidden], or [tokens, hidden] with pool "all".

        `hidden:0` is the embedding's output, `hidden:i` the output of layer i - 1, `hidden:-1` the last
        one, after the final norm.
        """
        self._ready()
        if pool not in get_args(Pool):
            raise InvalidRequest(f"pool {pool!r} is unknown; give one of {', '.join(get_args(Pool))}.", "pool")
        return self._engine._read(self, self._engine._hidden_index(what), pool)

    def drop(self) -> None:
        """Frees the sequence at once; an unfinished extend ends as cancelled. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._engine._drop(self)

    # -- context managers --------------------------------------------------------------------------

    def __enter__(self) -> SequenceHandle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()

    async def __aenter__(self) -> SequenceHandle:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()

    # -- internals ---------------------------------------------------------------------------------

    def _ready(self) -> None:
        if self._closed:
            raise SequenceClosed("The sequence was dropped; open a new one.")
        if self._extension is not None and not self._extension.done():
            raise SequenceBusy("An extend of this sequence is unfinished; await it or cancel it first.")
        self._collect()
        if self._failure is not None and self._failure.done():
            failure, self._failure = self._failure, None
            failure.result()

    def _collect(self) -> None:
        """Takes over the tokens of an extend that has finished."""
        if self._extension is not None and self._extension.done():
            extension, self._extension = self._extension, None
            self._tokens += _produced(extension)


def _produced(extension: Extension) -> list[int]:
    """Tokens of a finished extend; none where it failed, which whoever awaits it has been told."""
    try:
        return extension.result(0).token_ids
    except Exception:
        return []


def combine_scores(parts: list[Answer[list[TokenLogprob]]], whole: Answer[list[list[float]]]) -> None:
    """Completes `whole` when every part is there, or fails it with the first failure."""
    left = len(parts)

    def one_done(future: Future[list[TokenLogprob]]) -> None:
        nonlocal left
        left -= 1
        if (error := future.exception()) is not None:
            whole._fail(error)
        elif left == 0:
            whole._complete([[s.logprob for s in part.result(0)] for part in parts])

    for part in parts:
        part._future.add_done_callback(one_done)
