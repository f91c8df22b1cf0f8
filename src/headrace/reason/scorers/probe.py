"""A value head on the attempt's hidden state: the probability that it is, or will be, right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.adapt.head import Head
from headrace.reason.together import together
from headrace.spec.reasoning import Score, Scored, ScorerKind


@dataclass(frozen=True, slots=True)
class Probe:
    """Reads one position of the attempt's own sequence, its last token, after any step; nothing is forked or asked.

    2410.02725 trains the model to say how likely a restart would not help; here a small head reads the same from
    its state. Whatever it says holds for the model and the kind of question that it learned from.
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
        state = await item.sequence.read(self.head.state)
        return Score(0.0 if state is None else float(self.head(state)))
