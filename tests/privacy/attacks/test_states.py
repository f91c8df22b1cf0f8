"""A toy causal model's states and keys give away the prompt, whatever fixed key covers them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from privacy.attacks.keyed import embedding, orthogonal

pytest.importorskip("scipy.optimize", reason="needs the extra headrace[privacy]")

from headrace.privacy.attacks.recovery import Clock, Recovery, share
from headrace.privacy.attacks.states import Cover, read_states
from headrace.spec.errors import InvalidRequest

VOCAB, DIM = 400, 24
TABLE = embedding(VOCAB, DIM)
MIX, KEY_PROJECTION = (np.random.default_rng(seed).standard_normal((DIM, DIM)) / 5 for seed in (3, 4))
PROMPT = np.random.default_rng(6).integers(VOCAB, size=60)


def forward(tokens: Sequence[int]) -> np.ndarray:
    """One causal block: each state mixes the mean of those before into its own."""
    before = TABLE[list(tokens)].sum(axis=0) if len(tokens) else np.zeros(DIM)
    mean = (before + TABLE) / (len(tokens) + 1)
    return TABLE + np.tanh(mean @ MIX)


def keys(tokens: Sequence[int]) -> np.ndarray:
    return forward(tokens) @ KEY_PROJECTION


def states(make=forward) -> np.ndarray:
    return np.stack([make(PROMPT[:at])[token] for at, token in enumerate(PROMPT)])


def recovered(tokens: np.ndarray, prompt: np.ndarray = PROMPT) -> Recovery:
    clock, found = Clock(), tokens == prompt
    each = share(np.ones(len(prompt)), found, 1 / VOCAB)
    return Recovery("states", each, each, len(prompt), clock.cost(TABLE, tokens=len(prompt)))


COVERS = {
    "none": np.eye(DIM),
    "permutation": np.eye(DIM)[np.random.default_rng(1).permutation(DIM)],
    "rotation": orthogonal(np.random.default_rng(2), DIM),
}


@pytest.mark.parametrize("cover", COVERS)
@pytest.mark.parametrize("make", [forward, keys], ids=["hidden", "kv"])
def test_the_prompt_is_read_from_covered_states(make, cover: Cover) -> None:
    result = recovered(read_states(states(make) @ COVERS[cover], make, cover).tokens)
    assert result.types.value > 0.95 and result.types.low > result.types.chance and result.cost.tokens == 60


def test_the_wrong_cover_and_another_prompt_give_chance() -> None:
    found = read_states(states() @ COVERS["rotation"], forward, "none").tokens
    assert recovered(found).types.value < 0.2
    other = np.random.default_rng(99).integers(VOCAB, size=60)
    assert recovered(read_states(states(), forward).tokens, other).types.contains_chance


def test_states_that_are_no_table_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="those of one layer"):
        read_states(np.zeros(3), forward)
