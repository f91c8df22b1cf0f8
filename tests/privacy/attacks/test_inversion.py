"""Prompts read back from the states that a split model sends: planted, under noise, and from what says nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest

pytest.importorskip("torch", reason="the split runs on the reference backend")
pytest.importorskip("scipy", reason="needs the extra headrace[privacy]")

from backends.twins import VOCAB, RandomStore, decoder, draw
from headrace.privacy.attacks.inversion import Likeness, Search, best_of, clustered, invert, score_prompts
from headrace.privacy.attacks.public_model import NextToken, PublicBlocks, agreed
from headrace.privacy.attacks.recovery import Clock, Recovery
from headrace.privacy.attacks.states import read_states
from headrace.privacy.split.noise import Noise
from headrace.spec.errors import InvalidRequest

SPEC = decoder()
STORE = RandomStore(SPEC)
PROMPTS = [np.array(draw(20, seed)) for seed in (21, 22, 23)]
SEARCH = Search(wave=16, waves=5)
"""All of the vocabulary at worst: contexts move the states of a random model far."""


@cache
def blocks(depth: int) -> PublicBlocks:
    return PublicBlocks(SPEC, STORE, depth, context=64, batch=32, threads=1)


@cache
def likeness(depth: int, noise: float = 0.0) -> Likeness:
    texts = [draw(33, seed) for seed in range(100, 120)]
    states = np.concatenate([blocks(depth).states(text)[1:] for text in texts])
    return Likeness.fit(
        blocks(depth).vocabulary(texts[0][:7]), np.array([token for text in texts for token in text[1:]]), states, noise
    )


def attack(depth: int, noise: float = 0.0, random: bool = False, prior: NextToken | None = None) -> Recovery:
    add, rng, clock = Noise(noise, bytes(32)), np.random.default_rng(9), Clock()
    seen = [add(blocks(depth).states(prompt.tolist())) for prompt in PROMPTS]
    if random:
        seen = [rng.standard_normal(each.shape) * each.std() for each in seen]
    found = [invert(each, blocks(depth), likeness(depth, noise), noise, prior, SEARCH) for each in seen]
    return score_prompts("inversion", found, PROMPTS, VOCAB, clock.cost(*seen, tokens=60))


@pytest.mark.parametrize("depth", [0, 1])
def test_a_prompt_is_read_from_its_states(depth: int) -> None:
    result = attack(depth)
    assert result.mass.value == 1.0 and result.mass.low > 0.4 > result.mass.chance
    assert result.cost.tokens == 60 and result.cost.seconds > 0 and result.cost.bytes > 0
    assert "of processor time" in str(result) and Recovery.from_json(result.to_json()).mass == result.mass


@pytest.mark.parametrize("depth", [0, 1])
def test_random_states_give_chance(depth: int) -> None:
    assert attack(depth, random=True).mass.contains_chance


def test_noise_hides_more_the_stronger_it_is() -> None:
    found = [attack(1, noise).mass.value for noise in (0.1, 1.0, 30.0)]
    assert found[0] > 0.95 and found == sorted(found, reverse=True) and found[2] < 0.3


def test_the_likeliest_come_first_and_the_first_wave_that_explains_a_state_is_the_last() -> None:
    prompt = PROMPTS[0]
    for depth, most in ((0, 0), (1, VOCAB // 5)):
        scores = [likeness(depth)(state.astype(float)) for state in blocks(depth).states(prompt.tolist())[1:]]
        ranks = [int((score > score[token]).sum()) for score, token in zip(scores, prompt[1:], strict=True)]
        assert np.median(ranks) <= most
    asked: list[int] = []

    def counted(tokens: Sequence[int], ids: np.ndarray) -> np.ndarray:
        asked.append(len(ids))
        return blocks(0)(tokens, ids)

    invert(blocks(0).states(prompt.tolist()), counted, likeness(0), search=SEARCH)
    assert asked == [VOCAB] + [16] * 19
    asked.clear()
    invert(np.ones((2, 32)), counted, likeness(0), search=SEARCH)
    assert asked == [VOCAB, 16, 16, 16, 16, 3]


def test_candidates_have_the_states_they_would_have() -> None:
    """Across page borders, behind another prefix and behind none; and the search in all candidates agrees."""
    prompt = PROMPTS[0].tolist()
    wanted = blocks(1).states(prompt)
    for position in (0, 1, 15, 16, 17, 5):
        found = blocks(1)(prompt[:position], np.array([3, prompt[position], 5]))
        np.testing.assert_array_equal(found[1], wanted[position])
    blocks(1)([7, 7, 7], np.arange(4))
    np.testing.assert_array_equal(blocks(1)(prompt[:5], np.array([prompt[5]]))[0], wanted[5])
    everything = np.arange(VOCAB)
    found = read_states(wanted[:6], lambda tokens: blocks(1)(list(tokens), everything))
    np.testing.assert_array_equal(found.tokens, prompt[:6])


def test_what_the_language_expects_decides_where_states_do_not() -> None:
    """Under noise that drowns everything, a prior that knows the text finds it, and a flat one does not."""
    prompt = PROMPTS[0]

    def knowing(tokens: object) -> np.ndarray:
        believed = np.full(VOCAB, -20.0)
        believed[prompt[len(tokens)]] = 0.0  # type: ignore[arg-type]
        return believed

    seen = Noise(30.0, bytes(32))(blocks(1).states(prompt.tolist()))
    with_prior, without = (invert(seen, blocks(1), likeness(1, 30.0), 30.0, each, SEARCH) for each in (knowing, None))
    assert (with_prior == prompt).all() and (without == prompt).mean() < 0.5


def test_the_public_model_is_a_prior() -> None:
    prior, tokens = NextToken(SPEC, STORE, context=64, threads=1), draw(20, 7)
    whole = [prior(tokens[:length]) for length in (0, 3, 20, 4)]
    assert all(np.exp(each).sum() == pytest.approx(1) for each in whole)
    fresh = NextToken(SPEC, STORE, context=64, threads=1)
    np.testing.assert_array_equal(fresh(tokens[:4]), whole[3])
    assert len(np.unique(whole[0])) == 1 < len(np.unique(whole[1]))
    assert attack(1, 3.0, prior=prior).mass.value > 1 / VOCAB


def test_tokens_that_fall_together_count_as_fewer() -> None:
    whole, none = np.ones(10, bool), np.zeros(10, bool)
    mixed = np.arange(10) % 2 == 0
    together, apart = clustered([whole, none] * 4, 0.01), clustered([mixed] * 8, 0.01)
    assert together.value == apart.value == 0.5
    assert together.high - together.low > 2 * (apart.high - apart.low)
    assert clustered([whole] * 8, 0.01).low == pytest.approx(8 / (8 + 1.96**2), abs=1e-3)
    assert clustered([mixed], 0.01).high - clustered([mixed], 0.01).low > 0.8, "one prompt is one trial"
    assert clustered([whole], 0.01).high == 1.0 and clustered([none], 0.01).contains_chance


def test_small_parts() -> None:
    assert best_of(np.array([1.0, 5.0, 3.0]), 2).tolist() == [1, 2] and len(best_of(np.zeros(3), 9)) == 3
    assert agreed([1, 2, 3], [1, 2, 4]) == 2 == agreed([1, 2], [1, 2, 4]) and agreed([], [1]) == 0
    with pytest.raises(InvalidRequest, match="give a text"):
        Likeness.fit(blocks(0).vocabulary([1]), np.zeros(0, np.int64), np.zeros((0, 32)))
    with pytest.raises(InvalidRequest, match="one layer"):
        invert(np.zeros(3), blocks(1), likeness(1))
