"""A split model is the plain model: the same bits at every k, family and chunking, and the server sees states alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from privacy.split.made import CONTEXT, NAMES, made, plain_logits, split, whole

# isort: split
from backends.twins import ENCODER, RandomStore, draw
from headrace.engine.sampling import NoiseKey
from headrace.engine.sampling import draw as draw_token
from headrace.privacy.split.blocks import Blocks, StateLost
from headrace.privacy.split.client import SplitModel
from headrace.privacy.split.cut import behind, check_depth, head
from headrace.privacy.split.noise import Noise
from headrace.privacy.split.piece import Piece
from headrace.privacy.split.utility import Utility
from headrace.spec.errors import ContextExceeded, InvalidRequest, UnsupportedModel
from headrace.spec.sampling import Sampling

TOKENS = draw(41, seed=3)


@pytest.mark.parametrize("name", NAMES)
def test_logits_have_the_plain_models_bits(name: str) -> None:
    spec, store = made(name)
    wanted = plain_logits(spec, store, TOKENS)
    for depth in range(len(spec.layers)):
        with split(spec, store, depth) as model:
            parts = [model.append(TOKENS[a:b], every=True) for a, b in ((0, 17), (17, 18), (18, 41))]
            np.testing.assert_array_equal(np.concatenate(parts), wanted)
            model.begin()
            np.testing.assert_array_equal(model.append(TOKENS), wanted[-1:])


@pytest.mark.parametrize("sampling", [Sampling(temperature=0.0), Sampling(temperature=1.0, top_p=0.9)])
def test_answers_are_the_plain_models(sampling: Sampling) -> None:
    spec, store = made("grouped-query")
    piece, known = whole(spec, store), list(TOKENS[:9])
    for _ in range(12):
        logits = piece.logits(0, 0, known)[-1]
        known.append(draw_token(logits, sampling, NoiseKey(11, (0,)), known, 9))
    with split(spec, store, 1) as model:
        assert list(model.generate(TOKENS[:9], 12, sampling, seed=11)) == known[9:]
        assert list(model.generate(TOKENS[:9], 12, sampling, seed=11)) == known[9:], "a second answer begins anew"
    if sampling.temperature:
        with split(spec, store, 1) as model:
            assert list(model.generate(TOKENS[:9], 12, sampling, seed=12)) != known[9:]


def test_an_end_token_ends_the_answer() -> None:
    spec, store = made("grouped-query")
    with split(spec, store, 1) as model:
        answer = list(model.generate(TOKENS[:9], 8))
    with split(replace(spec, eos=(answer[3],)), store, 1) as model:
        assert list(model.generate(TOKENS[:9], 8)) == answer[: answer.index(answer[3]) + 1]


class Watched:
    """An upstream that notes what it is sent, and passes it on."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks, self.seen, self.made = blocks, list[np.ndarray](), list[np.ndarray]()

    def run(self, sequence: str, start: int, states: np.ndarray) -> np.ndarray:
        self.seen.append(states)
        self.made.append(self.blocks.run(sequence, start, states))
        return self.made[-1]

    def drop(self, sequence: str) -> None:
        self.blocks.drop(sequence)


def watched(depth: int, noise: Noise) -> tuple[np.ndarray, np.ndarray]:
    """States as they were sent, and logits of every position."""
    spec, store = made("tied, biases")
    upstream = Watched(Blocks(spec, store, depth, 1, CONTEXT, 1))
    model = SplitModel(spec, store, depth, upstream, noise, CONTEXT, 1)
    logits = model.append(TOKENS, every=True)
    assert model.carried.sent == model.carried.received == 4 * spec.hidden * len(TOKENS)
    return np.concatenate(upstream.seen), logits


@pytest.mark.parametrize("depth", [0, 1])
def test_what_is_sent_is_the_hidden_state_and_noise_of_the_given_norm(depth: int) -> None:
    spec, store = made("tied, biases")
    clear, logits = watched(depth, Noise(0.0))
    read = whole(spec, store).states(0, 0, TOKENS, at=depth)
    np.testing.assert_array_equal(clear, read)
    for ratio in (0.1, 2.0):
        noisy, moved = watched(depth, Noise(ratio, bytes(32)))
        shares = np.linalg.norm(noisy - clear, axis=1) / np.linalg.norm(clear, axis=1)
        assert np.sqrt(np.mean(shares**2)) == pytest.approx(ratio, rel=0.1)
        assert Utility.of(logits, moved).divergence > 0
    again, other = watched(depth, Noise(2.0, bytes(32)))[0], watched(depth, Noise(2.0))[0]
    np.testing.assert_array_equal(noisy, again)
    assert not np.array_equal(noisy, other)


def test_the_public_head_reads_a_greedy_answer_whatever_the_noise() -> None:
    spec, store = made("tied, biases")
    upstream = Watched(Blocks(spec, store, 1, 1, CONTEXT, 1))
    answer = list(SplitModel(spec, store, 1, upstream, Noise(3.0), CONTEXT, 1).generate(TOKENS, 8))
    public = Piece(head(spec, store, 8), context=CONTEXT, threads=1, logits=8)
    last = np.concatenate([states[-1:] for states in upstream.made])
    assert public.logits(0, 0, last).argmax(axis=1).tolist() == answer


def test_more_noise_costs_more() -> None:
    logits = watched(1, Noise(0.0))[1]
    lost = [Utility.of(logits, watched(1, Noise(ratio, bytes(32)))[1]) for ratio in (0.0, 0.1, 1.0, 10.0)]
    assert lost[0].divergence == lost[0].apart == 0.0 and lost[0].same.sum() == len(TOKENS)
    assert sorted(lost, key=lambda each: each.divergence) == lost and lost[3].same.sum() < lost[1].same.sum()


def test_sequences_stay_apart_and_the_oldest_is_forgotten() -> None:
    spec, store = made("windows")
    blocks = Blocks(spec, store, 1, slots=2, context=CONTEXT, threads=1)
    states = np.random.default_rng(1).standard_normal((3, 8, spec.hidden)).astype(np.float32)
    alone = blocks.run("a", 0, states[0])
    np.testing.assert_array_equal(blocks.run("b", 0, states[0]), alone)
    wanted = blocks.run("a", 8, states[1])
    assert not np.array_equal(blocks.run("b", 8, states[2]), wanted)
    blocks.drop("b")
    blocks.run("b", 0, states[0])
    np.testing.assert_array_equal(blocks.run("b", 8, states[1]), wanted)
    blocks.run("c", 0, states[2])
    with pytest.raises(StateLost, match="begin"):
        blocks.run("a", 16, states[1])
    np.testing.assert_array_equal(blocks.run("b", 0, states[0]), alone)


def test_what_cannot_be_split_or_run_is_refused() -> None:
    spec, store = made("grouped-query")
    for depth in (-1, len(spec.layers)):
        with pytest.raises(InvalidRequest, match="keep 0 to 1"):
            check_depth(spec, depth)
    with pytest.raises(UnsupportedModel, match="encoder"):
        SplitModel(ENCODER, RandomStore(ENCODER), 1, Watched(None))  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="ratio"):
        Noise(-0.1)
    blocks = Blocks(spec, store, 1, 1, CONTEXT, 1)
    for states in (np.zeros((0, 32)), np.zeros((2, 31)), np.full((1, 32), np.nan)):
        with pytest.raises(InvalidRequest, match="finite"):
            blocks.run("a", 0, states.astype(np.float32))
    with pytest.raises(ContextExceeded, match="--context"):
        blocks.run("a", CONTEXT, np.zeros((1, 32), np.float32))
    with split(spec, store, 1) as model, pytest.raises(ContextExceeded):
        model.append([1] * (CONTEXT + 1))


def test_a_backend_that_copies_its_embedding_is_found_out() -> None:
    pytest.importorskip("headrace.backends.native._kernels", reason="the native kernels were not built")
    spec, store = made("grouped-query")
    with pytest.raises(UnsupportedModel, match="reference"):
        Piece(behind(spec, store, 1, 16), context=CONTEXT, threads=1, backend="native")
