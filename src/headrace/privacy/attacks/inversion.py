"""From the states that a split model sends back to the prompt, by whoever sees them and holds the public weights.

A causal model's state at a position is a function of the tokens up to it, and in practice an injective one: tokens
are found one after the other by running candidates behind what was found (SipIt, Nikolaou et al. 2025, arXiv
2510.15511; vocabulary matching, Thomas et al. 2025). To run the whole vocabulary at every position costs too much
here. It is run once, behind a text of the attacker's; each state is near that of its token there, and candidates come
in waves, likeliest first: by that likeness and, under noise, by the public model's own prediction (the prior of
BeamClean, arXiv 2505.13758). One guess is kept a position; a beam may recover more, so figures are lower bounds of
what leaks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from headrace.privacy.attacks.recovery import Cost, Recovery, Share, share, wilson
from headrace.spec.errors import InvalidRequest

Forward: TypeAlias = Callable[[Sequence[int], np.ndarray], np.ndarray]
"""(tokens before, candidates int [n]) -> the state that each candidate would have: float [n, hidden]."""
Prior: TypeAlias = Callable[[Sequence[int]], np.ndarray]
"""Tokens before -> log-probability of each token of the vocabulary: float [vocab]."""
SHRINKAGE = 0.1
"""Towards equal variances: a thousand states say little of a covariance of hundreds of dimensions."""
EXACT = 1e-3
"""Distance over norm below which two states are of the same token: rounding stays far below, other tokens above."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """States given tokens as Gaussians of one covariance, each around its token's state behind another text.

    `centres` float32 [vocab, d], in the basis that `whiten` [d, d] leads to; `half` [vocab] half their squared norms.
    """

    centres: np.ndarray
    half: np.ndarray
    whiten: np.ndarray

    @classmethod
    def fit(cls, table: np.ndarray, tokens: np.ndarray, states: np.ndarray, noise: float = 0.0) -> Likeness:
        """`table` [vocab, d]: the states of all tokens behind one text.

        Tokens int [n] of other texts of the attacker's and their states [n, d] tell how far the context moves a
        state. `noise`: the ratio under which states are sent. Raises InvalidRequest for no states.
        """
        if not len(tokens) or len(tokens) != len(states):
            raise InvalidRequest(f"{len(states)} states of {len(tokens)} tokens fit nothing; give a text.", "tokens")
        rest = states.astype(np.float64) - table[tokens]
        shift = rest.mean(axis=0)
        rest -= shift
        width, power = table.shape[1], float(np.mean(states.astype(np.float64) ** 2))
        spread = (1 - SHRINKAGE) * (rest.T @ rest) / len(rest)
        alike = SHRINKAGE * float(np.mean(rest**2)) + power * (noise**2 + EXACT**2)
        whiten = np.linalg.inv(np.linalg.cholesky(spread + alike * np.eye(width))).T
        centres = ((table + shift) @ whiten).astype(np.float32)
        return cls(centres, np.einsum("vd,vd->v", centres, centres) / 2, whiten)

    def __call__(self, state: np.ndarray) -> np.ndarray:
        """Log-likelihood of a state [d] under each token, up to a constant: float32 [vocab]."""
        scores: np.ndarray = self.centres @ (state @ self.whiten).astype(np.float32) - self.half
        return scores


@dataclass(frozen=True, slots=True)
class Search:
    """At most `waves` waves of `wave` candidates a position; the first wave that explains the state is the last."""

    wave: int = 64
    waves: int = 4


def invert(
    observed: np.ndarray,
    forward: Forward,
    likeness: Likeness,
    noise: float = 0.0,
    prior: Prior | None = None,
    search: Search = Search(),
) -> np.ndarray:
    """The prompt behind the states of one sequence, float [tokens, d] -> int [tokens].

    `noise`: the ratio of the noise's norm to the state's, which the attacker is taken to know. Position 0 is looked
    up in the states of the whole vocabulary. Raises InvalidRequest for states that are no table.
    """
    if observed.ndim != 2:
        raise InvalidRequest(f"States of shape {observed.shape} are no [tokens, d]; give those of one layer.", "states")
    tokens: list[int] = []
    for state in observed.astype(np.float64):
        believed = prior(tokens) if prior else np.zeros(len(likeness.half))
        ranked = likeness(state) + believed
        if tokens:
            ids = best_of(ranked, search.wave * search.waves)
            waves = [ids[at : at + search.wave] for at in range(0, len(ids), search.wave)]
        else:
            waves = [np.arange(len(ranked))]
        tokens.append(_nearest(state, tokens, waves, forward, noise, believed))
    return np.array(tokens)


def _nearest(
    state: np.ndarray,
    tokens: Sequence[int],
    waves: Sequence[np.ndarray],
    forward: Forward,
    noise: float,
    believed: np.ndarray,
) -> int:
    """The likeliest candidate: noise is Gaussian around its state, `believed` [vocab] what was thought before."""
    width, norm = len(state), float(np.linalg.norm(state))
    moved = max(noise / np.sqrt(1 + noise**2), EXACT) * norm
    near = moved * (1 + 3 / np.sqrt(2 * width))
    best, highest = -1, -np.inf
    for ids in waves:
        apart = np.linalg.norm(forward(tokens, ids) - state, axis=1)
        scores = believed[ids] - apart**2 * width / (2 * moved**2)
        at = int(scores.argmax())
        if scores[at] > highest:
            best, highest = int(ids[at]), float(scores[at])
        if apart[at] <= near:
            break
    return best


def best_of(scores: np.ndarray, count: int) -> np.ndarray:
    """Ids of the `count` highest scores, highest first."""
    count = min(count, len(scores))
    ids = np.argpartition(-scores, count - 1)[:count]
    ordered: np.ndarray = ids[np.argsort(-scores[ids], kind="stable")]
    return ordered


def score_prompts(
    attack: str,
    guesses: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    vocab: int,
    cost: Cost,
    details: Mapping[str, Any] | None = None,
) -> Recovery:
    """Guessed prompts against the true ones, int [tokens] each. `types`: distinct tokens that were found anywhere."""
    found = [guess == truth for guess, truth in zip(guesses, truths, strict=True)]
    right, everywhere = np.concatenate(found), np.concatenate(truths)
    distinct = np.unique(everywhere)
    types = share(np.ones(len(distinct)), np.isin(distinct, everywhere[right]), 1 / vocab)
    return Recovery(attack, types, clustered(found, 1 / vocab), len(distinct), cost, dict(details or {}))


def clustered(found: Sequence[np.ndarray], chance: float) -> Share:
    """The share of tokens found over prompts, bool [tokens] each.

    A wrong token misleads those behind it, so tokens of one prompt are no independent trials: they count as many as
    the spread between prompts says (design effect, Kish 1965); where nothing is spread, as many as there are prompts,
    and one prompt, which shows no spread, is one trial.
    """
    total, prompts = sum(map(len, found)), len(found)
    value = sum(int(each.sum()) for each in found) / total
    alone = value * (1 - value) / total
    if not alone > 0:
        return wilson(value, prompts, chance)
    if prompts == 1:
        return wilson(value, 1, chance)
    apart = sum((int(each.sum()) - value * len(each)) ** 2 for each in found)
    effect = max(apart * prompts / (prompts - 1) / total**2 / alone, 1.0)
    return wilson(value, total / effect, chance)
