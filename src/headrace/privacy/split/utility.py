"""What noise costs the answer: a split model's logits against the plain model's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headrace.privacy.statistics import log_softmax
from headrace.spec.errors import InvalidRequest


@dataclass(frozen=True, slots=True, eq=False)
class Utility:
    """Over the positions of one prompt, which go together: an interval is one over prompts.

    `same` bool [positions]: where both name the same token first. `divergence`: the mean KL divergence in nats, of the
    split model's distribution from the plain one's. `apart`: the greatest difference of a logit.
    """

    same: np.ndarray
    divergence: float
    apart: float

    @classmethod
    def of(cls, plain: np.ndarray, split: np.ndarray) -> Utility:
        """From logits [positions, vocab] each. Raises InvalidRequest where the shapes differ or nothing is there."""
        if plain.shape != split.shape or not len(plain):
            raise InvalidRequest(f"Logits of {plain.shape} and {split.shape} cannot be compared; run the same text.")
        ours, theirs = log_softmax(plain), log_softmax(split)
        divergence = float((np.exp(ours) * (ours - theirs)).sum(axis=1).mean())
        same = plain.argmax(axis=1) == split.argmax(axis=1)
        return cls(same, divergence, float(np.abs(plain - split).max()))
