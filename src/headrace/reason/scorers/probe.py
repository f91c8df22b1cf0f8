"""A value head on the attempt's hidden state: the probability that it is, or will be, right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.adapt.head import Head
from headrace.reason.together import together
from headrace.spec.reasoning import Score, Scored, ScorerKind

if TYPE_CHECKING:
    import numpy as np

    from headrace.reason.node import Node


@dataclass(frozen=True, slots=True)
class Probe:
    """Reads one position of the attempt's own sequence, its last token but an end token; nothing is asked.

    An end token is the same behind every text, and its state tells little. 2410.02725 trains the model to say how
    likely a restart would not help; here a small head reads the same from its state. Whatever it says holds for the
    model and the kind of question that it learned from.
    """

    head: Head
    kind: ScorerKind = "process"
    sound: bool = False
    oracle: bool = False

    @classmethod
    def load(cls, folder: Path) -> Probe:
        """Raises ModelFileError for a folder that holds none."""
        return cls(Head.load(folder))

    @property
    def name(self) -> str:
        """Has the digest of the head's weights, so that scores of one head never pass for another's."""
        return f"probe({self.head.digest})"

    async def score(self, items: Sequence[Scored]) -> list[Score]:
        return await together(self._one(item) for item in items)

    async def _one(self, item: Scored) -> Score:
        node: Node = item.sequence
        if node.ending != "end":
            return self._said(await node.read(self.head.state))
        (look,) = node.fork(1)
        try:
            look.rewind(replace(look.mark(), length=len(look.tokens) - 1))
            return self._said(await look.read(self.head.state))
        finally:
            look.drop()

    def _said(self, state: np.ndarray | None) -> Score:
        return Score(0.0 if state is None else float(self.head(state)))
