"""An answer from passages that its asker may read, with their citations and its label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from headrace.engine.answer import Step
from headrace.engine.surface import Prompt
from headrace.ground.library import Library
from headrace.privacy.labels.engine import LabelledEngine
from headrace.privacy.labels.flow import FlowLabel, Labelled
from headrace.spec.reasoning import Passage
from headrace.spec.sampling import Sampling, Stop

Layout: TypeAlias = Callable[[str, Sequence[Passage]], Prompt]
"""(question, passages) -> prompt."""


@dataclass(frozen=True, slots=True)
class Citation:
    """Passage number `number` of the prompt, counted from 1: its id, its own label and its score."""

    number: int
    passage: str
    label: FlowLabel
    score: float


@dataclass(frozen=True, slots=True)
class Grounded:
    step: Step
    citations: tuple[Citation, ...]


def plain_layout(question: str, passages: Sequence[Passage]) -> str:
    """Numbered passages, then the question."""
    numbered = "".join(f"[{number}] {passage.text}\n" for number, passage in enumerate(passages, 1))
    return f"{numbered}Question: {question}\nAnswer:"


def cite(passages: Sequence[Passage]) -> tuple[Citation, ...]:
    return tuple(Citation(n, p.id, p.meta["label"], p.score) for n, p in enumerate(passages, 1))


async def answer(
    engine: LabelledEngine,
    library: Library,
    principal: str,
    question: Labelled[str],
    label: FlowLabel | None = None,
    *,
    count: int = 3,
    layout: Layout = plain_layout,
    adapter: str | None = None,
    stop: Stop | None = None,
    sampling: Sampling | None = None,
    seed: int | None = None,
) -> Labelled[Grounded]:
    """Answers from the `count` best passages readable at `label`, by default the principal's clearance.

    The label is fixed before the search: one that followed from what was found would tell what there is to find.
    Raises FlowRefused, and what `Engine.open_now` raises.
    """
    asked = engine.policy.clearance(principal) if label is None else label
    joined = engine.label_of(principal, question, asked, adapter)
    passages = (await library.at(joined).find([question.value], count))[0]
    prompt = Labelled(layout(question.value, passages), joined)
    how = {"adapter": adapter, "seed": seed, "sampling": sampling}
    with engine.open(principal, prompt, joined, **how) as sequence:  # type: ignore[arg-type]
        extension = sequence.extend(stop)
        return Labelled(Grounded(await extension.value, cite(passages)), extension.label)
