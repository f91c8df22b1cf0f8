"""What noise costs the answer: a split model's logits against the plain model's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
        ours, theirs = _log_softmax(plain), _log_softmax(split)
        divergence = float((np.exp(ours) * (ours - theirs)).sum(axis=1).mean())
        same = plain.argmax(axis=1) == split.argmax(axis=1)
        return cls(same, divergence, float(np.abs(plain - split).max()))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    values = logits.astype(np.float64)
    values -= values.max(axis=1, keepdims=True)
    result: np.ndarray = values - np.log(np.exp(values).sum(axis=1, keepdims=True))
    return result
