"""The audit of one model or adapter: documents it was trained on against documents of the same kind it never saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from headrace.privacy.audit.blind import blind
from headrace.privacy.audit.extraction import CANDIDATES, ENDING, extract, extracted
from headrace.privacy.audit.likelihood import Document, Likelihood, encoded
from headrace.privacy.audit.membership import Measured, attack
from headrace.privacy.audit.rates import auc, auc_gain, check_counts, tpr
from headrace.privacy.audit.report import THRESHOLD, Losses, Report, Told

if TYPE_CHECKING:
    from headrace.adapt.gradients import Examined

Progress: TypeAlias = Callable[[str, int, int], None]
"""(what, documents done, documents in all)"""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is audited: `tuned`, the `base` it comes from, and an examiner of its weights, where there are such."""

    name: str
    tuned: Likelihood
    base: Likelihood | None = None
    examine: Callable[[Sequence[int]], Examined] | None = None

    def measure(self, texts: Sequence[str], examined: int = 0, progress: Progress | None = None) -> list[Measured]:
        """Everything about the documents that the attacks need; of the first `examined` also gradients."""
        documents = encoded(self.tuned.engine, texts)
        tuned = self.tuned(documents)
        base: Sequence[np.ndarray | None] = self.base(documents) if self.base else [None] * len(texts)
        seen = self._examined(documents[:examined], progress)
        seen += [None] * (len(texts) - len(seen))
        return [Measured(*parts) for parts in zip(texts, tuned, base, seen, strict=True)]

    def extract(
        self, texts: Sequence[str], candidates: int = CANDIDATES, seed: int = 0, ending: int = ENDING
    ) -> list[bool]:
        """Whether each document's last tokens are found from what stands before them."""
        return extract(self.tuned, self.base, encoded(self.tuned.engine, texts), candidates, seed, ending)

    def _examined(self, documents: Sequence[Document], progress: Progress | None) -> list[Examined | None]:
        if self.examine is None:
            return []
        found: list[Examined | None] = []
        for document in documents:
            found.append(self.examine(document))
            if progress is not None:
                progress("documents with gradients", len(found), len(documents))
        return found


def report(
    name: str,
    members: Sequence[Measured],
    held_out: Sequence[Measured],
    found: Sequence[bool] = (),
    threshold: float = THRESHOLD,
    seed: int = 0,
) -> Report:
    """What the attacks make of measured documents; `found`: what extraction did of members.

    Raises InvalidRequest as `check_counts` does.
    """
    check_counts(len(members), len(held_out))
    scores = attack(members, held_out, seed)
    told = [Told(by, auc(of, seed), tpr(of, seed), len(of.members), len(of.held_out)) for by, of in scores.items()]
    gain = auc_gain(scores["loss-ratio"], scores["loss"], seed) if "loss-ratio" in scores else None
    apart = blind([one.text for one in members], [one.text for one in held_out], seed)
    endings = extracted(found) if found else None
    return Report(name, tuple(told), gain, endings, apart, losses_of(members, held_out), threshold)


def losses_of(members: Sequence[Measured], held_out: Sequence[Measured]) -> Losses:
    """Over all tokens of a set."""
    tuned = [_loss([one.tuned for one in group]) for group in (members, held_out)]
    base = [[one.base for one in group if one.base is not None] for group in (members, held_out)]
    return Losses(tuned[0], tuned[1], *(_loss(group) if group else None for group in base))


def _loss(found: Sequence[np.ndarray]) -> float:
    return -float(np.concatenate(found).mean())
