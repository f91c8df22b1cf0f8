"""A decoder run by parties that hold shares of it: prompt, weights and logits stay secret to each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

import numpy as np

from headrace.model.catalogue import Progress
from headrace.privacy.mpc.session import Session, Spent
from headrace.privacy.mpc.transformer import Shape
from headrace.privacy.mpc.weights import Prepared, onehot


class SecretDecoder:
    """`keep`: every layer's shares stay with the parties; else each layer is shared again for every pass."""

    def __init__(self, session: Session, weights: Prepared, shape: Shape, keep: bool = True) -> None:
        self._session, self._weights, self._shape, self._keep = session, weights, shape, keep
        self._held: set[str] = set()
        self.spent = Spent()

    def logits(self, tokens: Sequence[int], rows: int | None = None, report: Progress | None = None) -> np.ndarray:
        """float32 [rows, vocab] for the last `rows` tokens, by default all of them. Raises PartiesFailed."""
        told = report or (lambda what, done, total: None)
        h = self.embedded(tokens)
        for index in range(self._shape.layers):
            told("layers", index, self._shape.layers)
            h = self.block(index, h)
        told("layers", self._shape.layers, self._shape.layers)
        rows = rows or self._shape.tokens
        self._hold("head", lambda: {"head": self._weights.head()})
        self._run({"kind": "head", "rows": rows}, [h, "head"], "logits", 2 * self._shape.layers)
        self._let_go("head", ["head"])
        return self._session.reveal("logits")

    def embedded(self, tokens: Sequence[int]) -> str:
        """The name under which the parties hold the rows of the tokens."""
        self._hold("embedding", lambda: {"embedding": self._weights.embedding()})
        self._session.share({"tokens": onehot(tokens, self._shape.vocab)})
        self._run({"kind": "embed"}, ["tokens", "embedding"], "h")
        self._let_go("embedding", ["embedding"])
        return "h"

    def block(self, index: int, h: str) -> str:
        """One layer on what is held under `h`."""
        names = [f"{index}.{name}" for name in self._shape.weights()]
        self._hold(str(index), lambda: {f"{index}.{n}": w for n, w in self._weights.layer(index).items()})
        self._run({"kind": "block"}, [h, *names], "h", 2 * index)
        self._let_go(str(index), names)
        return "h"

    def share_state(self, h_td: np.ndarray) -> str:
        """Hidden states, to run a block on."""
        self._session.share({"h": h_td})
        return "h"

    def _run(self, program: dict[str, object], inputs: list[str], output: str, norm: int = 0) -> None:
        # Blocks are alike whatever the depth: one program serves all whose norms need the same calming.
        calm = self._weights.calm
        pair = (calm[norm], calm[min(norm + 1, len(calm) - 1)])
        shape = asdict(replace(self._shape, layers=1, calm=pair))
        self.spent += self._session.run(program | {"shape": shape}, inputs, output)

    def _hold(self, part: str, made: Callable[[], dict[str, np.ndarray]]) -> None:
        if part not in self._held:
            self._session.share(made())
            self._held.add(part)

    def _let_go(self, part: str, names: list[str]) -> None:
        if not self._keep:
            self._session.forget(names)
            self._held.discard(part)
