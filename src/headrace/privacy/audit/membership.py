"""Membership attacks: from what a model makes of a document, how likely it was trained on it.

Every score is higher for likelier members. The last three have the weights at hand (Pandora's White-Box, arXiv
2402.17012); min-k%++ needs all chances of a place, the others the log-probabilities of a document's own tokens.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np

from headrace.privacy.audit.logistic import cross_fitted
from headrace.privacy.audit.rates import Scores

if TYPE_CHECKING:
    from headrace.adapt.gradients import Examined

Attack: TypeAlias = Literal[
    "loss", "zlib", "min-k", "reference", "loss-ratio", "min-k++", "gradient-norm", "supervised"
]
ATTACKS: tuple[Attack, ...] = get_args(Attack)
LEAST_SHARE = 0.2
"""The k of min-k%: the share of a document's tokens that are least likely."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One document and what was computed of it.

    `tuned` and `base` [tokens - 1]: log-probabilities by the audited model and by its base, where it has one;
    `examined`: what was seen with the weights at hand, where that was looked at.
    """

    text: str
    tuned: np.ndarray
    base: np.ndarray | None = None
    examined: Examined | None = None


def loss(found: Measured) -> float:
    """Yeom et al., arXiv 1709.01604: members have a lower mean loss."""
    return float(found.tuned.mean())


def zlib_ratio(found: Measured) -> float:
    """Carlini et al., arXiv 2012.07805: the loss of the whole over the bytes it is compressed to."""
    return float(found.tuned.sum()) / len(zlib.compress(found.text.encode()))


def min_k(found: Measured) -> float:
    """Min-k%, Shi et al., arXiv 2310.16789: the mean of the least likely tokens alone."""
    return _least(found.tuned)


def reference(found: Measured) -> float:
    """Watson et al., arXiv 2111.08440: the loss against what the base finds hard by itself, as a difference."""
    assert found.base is not None
    return float(found.tuned.mean() - found.base.mean())


def loss_ratio(found: Measured) -> float:
    """FLoRA of arXiv 2402.17012: the tuned model's loss over that of its base."""
    assert found.base is not None
    return -float(found.tuned.sum() / found.base.sum())


def min_k_plus(found: Measured) -> float:
    """Min-k%++, Zhang et al., arXiv 2404.02936: each token against mean and deviation of all chances in its place."""
    assert found.examined is not None
    seen = found.examined
    return _least((seen.logprobs - seen.means) / np.maximum(seen.deviations, 1e-6))


def gradient_norm(found: Measured) -> float:
    """arXiv 2402.17012: what was learned pulls less at the weights."""
    assert found.examined is not None
    return -float(np.log(np.linalg.norm(found.examined.gradients) + 1e-30))


PLAIN: dict[Attack, Callable[[Measured], float]] = {"loss": loss, "zlib": zlib_ratio, "min-k": min_k}
AGAINST_BASE: dict[Attack, Callable[[Measured], float]] = {"reference": reference, "loss-ratio": loss_ratio}
WITH_WEIGHTS: dict[Attack, Callable[[Measured], float]] = {"min-k++": min_k_plus, "gradient-norm": gradient_norm}


def attack(members: Sequence[Measured], held_out: Sequence[Measured], seed: int = 0) -> dict[Attack, Scores]:
    """Every attack that what was measured allows, each on all documents it can score."""
    found = {name: _scored(score, members, held_out) for name, score in PLAIN.items()}
    if all(one.base is not None for one in (*members, *held_out)):
        found |= {name: _scored(score, members, held_out) for name, score in AGAINST_BASE.items()}
    looked, other = ([one for one in group if one.examined is not None] for group in (members, held_out))
    if looked and other:
        found |= {name: _scored(score, looked, other) for name, score in WITH_WEIGHTS.items()}
        found["supervised"] = supervised(looked, other, seed)
    return {name: found[name] for name in ATTACKS if name in found}


def supervised(members: Sequence[Measured], held_out: Sequence[Measured], seed: int) -> Scores:
    """A logistic regression on all other scores and on gradient norms by depth, scored on documents it did not see."""
    features = np.array([_features(one) for one in (*members, *held_out)])
    labels = np.repeat([1.0, 0.0], [len(members), len(held_out)])
    scores = cross_fitted(features, labels, seed)
    return Scores(scores[: len(members)], scores[len(members) :])


def _features(found: Measured) -> list[float]:
    assert found.examined is not None
    scores = [score(found) for score in (PLAIN | (AGAINST_BASE if found.base is not None else {})).values()]
    scores += [score(found) for score in WITH_WEIGHTS.values()]
    depths = np.array_split(found.examined.gradients, 3)
    return scores + [float(np.log(np.linalg.norm(depth) + 1e-30)) for depth in depths]


def _scored(score: Callable[[Measured], float], members: Sequence[Measured], held_out: Sequence[Measured]) -> Scores:
    return Scores(*(np.array([score(one) for one in group]) for group in (members, held_out)))


def _least(values: np.ndarray) -> float:
    count = max(1, round(LEAST_SHARE * len(values)))
    return float(np.sort(values)[:count].mean())
