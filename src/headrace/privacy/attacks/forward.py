"""Hidden states of a model as it runs: those of a text, and those that each token of the vocabulary would have next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import numpy as np

from headrace.backends.select import make_executor
from headrace.model.loading import ResidentStore
from headrace.privacy.attacks.artefact import Opened
from headrace.spec.batch import Batch, Row
from headrace.spec.errors import InvalidRequest
from headrace.spec.executor import Limits
from headrace.spec.ledger import Ledger
from headrace.spec.model import PAGE_TOKENS
from headrace.spec.options import EngineOptions

AT_ONCE = 256


class Prefix:
    """The first layers of a model: hidden state `layer`, the sum that its next block reads, before any norm.

    Each of `at_once` sequences holds the text so far; candidates for the next token overwrite each other behind it.
    """

    def __init__(
        self, model: Opened, layer: int, longest: int, threads: int | None = None, at_once: int = AT_ONCE
    ) -> None:
        """`longest`: tokens of the longest text. Raises InvalidRequest for a layer or length that there is not."""
        spec = model.spec
        if not spec.causal or not 1 <= layer <= len(spec.layers):
            raise InvalidRequest(
                f"{model.name} has no hidden state {layer} to match; give a decoder and 1 to {len(spec.layers)}.",
                "layer",
            )
        if longest >= spec.context:
            raise InvalidRequest(f"{longest} tokens fill the context of {spec.context}; give fewer.", "tokens")
        self.spec, self.layer = replace(spec, layers=spec.layers[:layer], final_norm=None), layer
        self._size = max(1, min(at_once, spec.vocab))
        self._each = longest // PAGE_TOKENS + 1
        self._groups = len(self.spec.state_groups())
        limits = Limits((self._size * self._each,) * self._groups, max(self._size, longest), 1)
        options = EngineOptions(state_type="fp32", threads=threads)
        self._executor = make_executor(self.spec, ResidentStore(model.tensors), limits, Ledger(), options)
        self._held: list[int] = []
        self._step = 0

    def states(self, tokens: Sequence[int]) -> np.ndarray:
        """float32 [tokens, hidden] of a text."""
        self._held = []  # overwrites what the first sequence holds
        return self._run([self._row(0, 0, tokens)])[0]

    def __call__(self, tokens: Sequence[int]) -> np.ndarray:
        """float32 [vocab, hidden]: the state of each token of the vocabulary behind these."""
        self._hold(list(tokens))
        found = np.empty((self.spec.vocab, self.spec.hidden), np.float32)
        for start in range(0, self.spec.vocab, self._size):
            some = range(start, min(start + self._size, self.spec.vocab))
            rows = [self._row(slot, len(tokens), [token]) for slot, token in enumerate(some)]
            found[some.start : some.stop] = np.concatenate(self._run(rows))
        return found

    def _hold(self, tokens: list[int]) -> None:
        """Every sequence holds these tokens; what it holds of them already stays."""
        if tokens[: len(self._held)] != self._held:
            self._held = []
        start, new = len(self._held), tokens[len(self._held) :]
        together = max(1, self._size // max(len(new), 1))
        for first in range(0, self._size if new else 0, together):
            self._run([self._row(slot, start, new) for slot in range(first, min(first + together, self._size))])
        self._held = tokens

    def _row(self, sequence: int, start: int, tokens: Sequence[int]) -> Row:
        table = tuple(range(sequence * self._each, (sequence + 1) * self._each))
        return Row(sequence, "read", start, tuple(tokens), (table,) * self._groups, reads=(self.layer,))

    def _run(self, rows: Sequence[Row]) -> list[np.ndarray]:
        self._step += 1
        hidden = self._executor.submit(Batch(self._step, tuple(rows))).result().hidden
        return [hidden[index, self.layer].copy() for index in range(len(rows))]

    def close(self) -> None:
        self._executor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
