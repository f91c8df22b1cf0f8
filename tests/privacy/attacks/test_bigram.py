"""A planted substitution falls to bigrams and to known pairs; a cipher of another key does not."""

from __future__ import annotations

import numpy as np
import pytest

from privacy.attacks.keyed import embedding, key, text

pytest.importorskip("scipy.optimize", reason="needs the extra headrace[privacy]")

from headrace.privacy.attacks.bigram import bigram, by_assignment, by_rank
from headrace.privacy.attacks.known_pairs import pairs_of, with_traffic, with_weights
from headrace.privacy.attacks.recovery import UNKNOWN, Clock, Recovery, score_map
from headrace.privacy.attacks.traffic import traffic
from headrace.spec.errors import InvalidRequest

VOCAB, TOKENS = 250, 60_000
PLANTED = key(VOCAB, 8)
WIRE = PLANTED.wire[text(TOKENS, VOCAB, seed=1)]
WIRE_TRAFFIC, KNOWN = traffic(WIRE, VOCAB), traffic(text(TOKENS, VOCAB, seed=2), VOCAB)


def scored(token_map: np.ndarray, truth: np.ndarray = PLANTED.truth, held_out: np.ndarray | None = None) -> Recovery:
    return score_map("bigram", token_map, truth, Clock().cost(WIRE, tokens=len(WIRE)), WIRE_TRAFFIC.counts, held_out)


def test_traffic_counts_what_follows_what() -> None:
    found = traffic(np.array([1, 2, 1, 2, 0]), 4)
    assert found.counts.tolist() == [1, 2, 2, 0] and found.tokens == 5
    assert found.follows.toarray()[1].tolist() == [0, 0, 2, 0] and found.precedes.toarray()[0, 2] == 1
    assert found.ranked.tolist() == [1, 2, 0]


def test_traffic_of_another_vocabulary_is_refused() -> None:
    for ids in ([1], [1, 4], [-1, 2]):
        with pytest.raises(InvalidRequest, match="below 4"):
            traffic(np.array(ids), 4)


def test_a_planted_substitution_is_found() -> None:
    result = scored(bigram(WIRE_TRAFFIC, KNOWN, top=100))
    assert result.types.value > 0.9 and result.mass.value > 0.9 and result.types.low > result.types.chance
    assert result.cost.tokens == TOKENS and result.cost.bytes == WIRE.nbytes


def test_propagation_adds_to_the_assignment_and_rank_is_no_attack() -> None:
    seeds = scored(by_assignment(WIRE_TRAFFIC, KNOWN, top=100)).types.value
    assert seeds < 0.45 < scored(bigram(WIRE_TRAFFIC, KNOWN, top=100)).types.value
    assert scored(by_rank(WIRE_TRAFFIC, KNOWN)).types.value < 0.3


def test_an_independent_key_is_found_by_chance_only() -> None:
    null = scored(bigram(WIRE_TRAFFIC, KNOWN, top=100), key(VOCAB, 8, seed=4).truth)
    assert null.types.contains_chance and null.mass.contains_chance


def test_text_of_another_language_says_little() -> None:
    foreign = traffic(text(TOKENS, VOCAB, seed=2, language=99), VOCAB)
    assert scored(bigram(WIRE_TRAFFIC, foreign, top=100)).types.value < 0.1


def test_pairs_are_one_of_each_id() -> None:
    told = pairs_of(np.array([4, 2, 4]), np.array([7, 8, 7]))
    assert told.wire.tolist() == [2, 4] and told.tokens.tolist() == [8, 7]
    with pytest.raises(InvalidRequest, match="no pairs"):
        pairs_of(np.array([4]), np.array([7, 8]))


def test_pairs_give_the_others() -> None:
    told = pairs_of(WIRE[:60], PLANTED.truth[WIRE[:60]])
    held_out = ~np.isin(np.arange(VOCAB), told.wire)
    found = with_traffic(WIRE_TRAFFIC, KNOWN, told)
    assert (found[told.wire] == told.tokens).all()
    assert scored(found, held_out=held_out).types.value > 0.9
    null = scored(found, key(VOCAB, 8, seed=4).truth, held_out)
    assert null.types.contains_chance


def test_no_pairs_give_nothing() -> None:
    found = with_traffic(WIRE_TRAFFIC, KNOWN, pairs_of(WIRE[:0], WIRE[:0]))
    assert (found == UNKNOWN).all()


def test_pairs_open_a_table_whose_moments_noise_has_hidden() -> None:
    planted, public = key(1500, 32), embedding(1500, 32)
    deployed = planted.table(public, noise=0.5)
    wire = np.random.default_rng(0).permutation(1500)[:128]
    held_out = ~np.isin(np.arange(1500), wire)
    found = with_weights(public, deployed, pairs_of(wire, planted.truth[wire]))
    result = score_map("known pairs", found.token_map, planted.truth, Clock().cost(public), held_out=held_out)
    assert result.types.value > 0.9
    null = score_map(
        "known pairs", found.token_map, key(1500, 32, seed=8).truth, Clock().cost(public), held_out=held_out
    )
    assert null.types.contains_chance
