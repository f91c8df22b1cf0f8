"""The client's side: tokens, embedding, the first k blocks, final norm and head. One sequence at a time.

Whoever runs the blocks in the middle is sent states, no token. That is no promise that text is hidden: with the public
weights a state tells the token it was made of, and the public head reads the answer (docs/split.md has what was
recovered).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.engine.sampling import NoiseKey, draw
from headrace.privacy.split.blocks import Upstream
from headrace.privacy.split.cut import before, check_depth, head
from headrace.privacy.split.noise import Noise
from headrace.privacy.split.piece import STEP, Piece
from headrace.spec.errors import ContextExceeded, InvalidRequest
from headrace.spec.executor import WeightStore
from headrace.spec.model import ModelSpec
from headrace.spec.sampling import Sampling


@dataclass(slots=True)
class Carried:
    """What has gone over the wire: `tokens` in `messages`, bytes of states alone."""

    tokens: int = 0
    messages: int = 0
    sent: int = 0
    received: int = 0


class SplitModel:
    """The model, its middle by `upstream`. Raises what `check_depth` and `Piece` raise."""

    def __init__(
        self, spec: ModelSpec, weights: WeightStore, depth: int, upstream: Upstream, noise: Noise | None = None,
        context: int = 1024, threads: int | None = None,
    ) -> None:  # fmt: skip
        check_depth(spec, depth)
        self.spec, self.depth, self.noise, self.carried = spec, depth, noise or Noise(0.0), Carried()
        self._first = Piece(before(spec, weights, depth), context=context, threads=threads)
        self._head = Piece(head(spec, weights, STEP), context=STEP, threads=threads, logits=STEP)
        self._upstream, self.context = upstream, self._first.context
        self._read = -1 if depth else 0
        self._sequence: str | None = None
        self._length = 0

    @property
    def profile(self) -> str:
        return profile(self.depth, self.noise.ratio)

    def begin(self) -> None:
        """Forgets the sequence, here and there."""
        if self._sequence is not None:
            self._upstream.drop(self._sequence)
        self._sequence, self._length = secrets.token_hex(16), 0

    def append(self, tokens: Sequence[int], every: bool = False) -> np.ndarray:
        """Runs tokens behind what the sequence has: logits float32 of the last [1, vocab] or of `every` one.

        Raises InvalidRequest for no tokens, ContextExceeded, and what the upstream raises; the sequence then has to
        begin again.
        """
        if not tokens:
            raise InvalidRequest("Nothing is there to be run; give at least one token.", "tokens")
        if self._length + len(tokens) > self.context:
            raise ContextExceeded(
                f"The sequence would have {self._length + len(tokens)} tokens of {self.context}; shorten it, or give a"
                " longer --context."
            )
        if self._sequence is None:
            self.begin()
        parts = [self._message(tokens[at : at + STEP]) for at in range(0, len(tokens), STEP)]
        if every:
            return np.concatenate([self._head.logits(0, 0, part) for part in parts])
        return self._head.logits(0, 0, parts[-1][-1:])

    def _message(self, tokens: Sequence[int]) -> np.ndarray:
        """There and back: states [n, hidden]."""
        assert self._sequence is not None
        sent = self.noise(self._first.states(0, self._length, tokens, self._read))
        back = self._upstream.run(self._sequence, self._length, sent)
        self._length += len(tokens)
        self.carried.tokens += len(tokens)
        self.carried.messages += 1
        self.carried.sent += sent.nbytes
        self.carried.received += back.nbytes
        return back

    def generate(
        self, prompt: Sequence[int], tokens: int, sampling: Sampling = Sampling(temperature=0.0), seed: int = 0
    ) -> Iterator[int]:
        """New tokens, at most so many, up to and with one that ends the text; drawn as the engine draws them."""
        self.begin()
        known, noise = list(prompt), NoiseKey(seed, (0,))
        given: Sequence[int] = known.copy()
        for _ in range(tokens):
            logits = self.append(given)[0]
            known.append(draw(logits, sampling, noise, known, len(prompt)))
            given = known[-1:]
            yield known[-1]
            if known[-1] in self.spec.eos:
                return

    def close(self) -> None:
        if self._sequence is not None:
            self._upstream.drop(self._sequence)
            self._sequence = None
        self._first.close()
        self._head.close()


def profile(depth: int, ratio: float) -> str:
    """The profile's name, as it stands in answers and reports."""
    return f"split:{depth},noise={ratio:g}" if ratio else f"split:{depth}"
