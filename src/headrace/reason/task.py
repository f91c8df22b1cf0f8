"""What a run is asked: the question, how it is put to the model, what counts as a step, an end and an answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace.engine.surface import Prompt
from headrace.spec.reasoning import AnswerSpace
from headrace.spec.sampling import Stop


@dataclass(frozen=True, slots=True)
class Task:
    """`step` ends one step of an attempt, `ending` the attempt itself: both also where the model ends.

    `chat`: questions go through the model's chat template, after the messages `before`; else they are
    completed as they are.
    `meta` is for scorers of synthetic tasks, and for strategies that need a task's structure: `choices`, `examples`,
    `think`, `rules`. Of the rest the model sees nothing.
    """

    question: str
    answers: AnswerSpace
    step: Stop = field(default_factory=lambda: Stop(tokens=64, text=("\n\n",), include=True))
    ending: Stop = field(default_factory=lambda: Stop(tokens=256))
    chat: bool = True
    before: tuple[Mapping[str, str], ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    def prompt(self, text: str | None = None) -> Prompt:
        """The prompt for `text`, else for the question itself."""
        words = self.question if text is None else text
        if not self.chat:
            return words
        return [*self.before, {"role": "user", "content": words}]
