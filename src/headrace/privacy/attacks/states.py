"""Hidden states and KV caches: whoever holds them and the public weights reads the prompt, token by token.

Vocabulary matching (Thomas et al. 2025, "Hidden No More"): a causal model's state at a position is a function of the
tokens up to it, so each token is found by trying the vocabulary. What a veil does to states is undone by comparing
only what it cannot change: sorted values under a permutation of dimensions, inner products under a rotation. The
same search over keys and values is the collision attack on KV caches (Luo et al. 2025, "Shadow in the Cache").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from headrace.privacy.attacks.confidence import is_decisive
from headrace.spec.errors import InvalidRequest

Cover: TypeAlias = Literal["none", "permutation", "rotation"]
Forward: TypeAlias = Callable[[Sequence[int]], np.ndarray]
"""From the tokens before to the state that each token of the vocabulary would have next: [vocab, d]."""


class Read(NamedTuple):
    """`tokens` int [n]. `sure` bool [n]: decisively nearer than the next best token."""

    tokens: np.ndarray
    sure: np.ndarray


class Beginning(NamedTuple):
    """What the attacker knows of a text already: `tokens` [n], a template's say, and its own states of them [n, d]."""

    tokens: Sequence[int]
    states: np.ndarray


def read_states(
    observed: np.ndarray, forward: Forward, cover: Cover = "none", beginning: Beginning | None = None
) -> Read:
    """The prompt behind the states of one layer, [tokens, d], as far as it comes after the beginning.

    `cover` is what one fixed key did to the dimensions of all states; under a rotation a first state has its norm
    alone. Costs one forward pass of the vocabulary a position. Raises InvalidRequest for states that are no table.
    """
    if observed.ndim != 2:
        raise InvalidRequest(f"States of shape {observed.shape} are no [tokens, d]; give those of one layer.", "states")
    known, seen = beginning or Beginning((), np.empty((0, observed.shape[1])))
    tokens = list(known)
    sure: list[bool] = []
    for position in range(len(known), len(observed)):
        states, state = forward(tokens).astype(np.float64), observed[position].astype(np.float64)
        apart = _apart(states, state, seen, observed[:position], cover)
        tokens.append(int(apart.argmin()))
        sure.append(is_decisive(apart))
        seen = np.vstack([seen, states[tokens[-1]]])
    return Read(np.array(tokens[len(known) :], np.int64), np.array(sure, bool))


def _apart(states: np.ndarray, state: np.ndarray, own: np.ndarray, before: np.ndarray, cover: Cover) -> np.ndarray:
    """How far each candidate [vocab, d] is from the observed state in what the cover leaves alone: [vocab].

    Under a rotation: norm and inner products with the states before, of which the attacker has its own copies.
    """
    if cover == "none":
        return np.linalg.norm(states - state, axis=1)
    if cover == "permutation":
        return np.linalg.norm(np.sort(states, axis=1) - np.sort(state), axis=1)
    inner = states @ own.T - before @ state
    norms = np.linalg.norm(states, axis=1) ** 2 - state @ state
    return np.hypot(norms, np.linalg.norm(inner, axis=1))
