"""Rates against their definitions, intervals that hold as often as they say, and attacks on planted scores."""

from __future__ import annotations

from itertools import product
from string import ascii_lowercase

import numpy as np
import pytest

from headrace.adapt.vocabulary import Vocabulary
from headrace.model.tokenizer import Tokenizer
from headrace.privacy.audit.blind import LIMIT, blind
from headrace.privacy.audit.canaries import KNOWN, SECRET, canaries, words_of
from headrace.privacy.audit.logistic import cross_fitted, fit
from headrace.privacy.audit.rates import Scores, auc, auc_gain, bar, tpr
from headrace.privacy.audit.small import TOKENS, WORDS
from headrace.spec.errors import InvalidRequest


def drawn(shift: float, members: int, held_out: int, seed: int) -> Scores:
    rng = np.random.default_rng(seed)
    return Scores(rng.standard_normal(members) + shift, rng.standard_normal(held_out))


def test_auc_and_tpr_are_what_they_are_called() -> None:
    scores = drawn(0.7, 30, 250, 1)
    pairs = [(a > b) + 0.5 * (a == b) for a, b in product(scores.members, scores.held_out)]
    assert auc(scores).value == pytest.approx(np.mean(pairs))
    level = float(bar(scores.held_out))
    assert (scores.held_out > level).sum() == 2 and (scores.held_out >= level).sum() == 3
    assert tpr(scores).value == (scores.members > level).mean()
    assert auc(Scores(np.zeros(5), np.zeros(200))).value == 0.5 and tpr(Scores(np.zeros(5), np.zeros(200))).value == 0
    with pytest.raises(InvalidRequest, match="99 held-out documents have no hundredth"):
        tpr(drawn(0, 5, 99, 1))
    with pytest.raises(InvalidRequest, match="There are no members; give at least one"):
        tpr(drawn(0, 0, 200, 1))


def test_intervals_hold_chance_where_nothing_is_known_and_not_where_all_is() -> None:
    nothing = [drawn(0.0, 200, 400, seed) for seed in range(20)]
    assert sum(auc(scores, seed).contains_chance for seed, scores in enumerate(nothing)) >= 17
    assert sum(tpr(scores, seed).contains_chance for seed, scores in enumerate(nothing)) >= 17
    known = drawn(6.0, 200, 400, 1)
    assert tpr(known).value > 0.95 and tpr(known).low > 0.9 and auc(known).low > 0.99
    assert not tpr(known).contains_chance and not auc(known).contains_chance
    everything = tpr(drawn(30.0, 50, 400, 1))
    assert everything.value == everything.high == 1 and 0.9 < everything.low < 1


def test_a_gain_is_paired() -> None:
    rng, weak = np.random.default_rng(2), drawn(0.5, 150, 600, 2)
    strong = Scores(weak.members + 0.5 + 0.1 * rng.standard_normal(150), weak.held_out)
    gain = auc_gain(strong, weak)
    assert gain.value == pytest.approx(auc(strong).value - auc(weak).value) and 0 < gain.low < gain.value < gain.high
    same = auc_gain(weak, weak)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_logistic_regression_finds_the_weights_it_was_drawn_with() -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((4000, 3))
    true = np.array([1.5, -1.0, 0.0])
    y = (rng.random(4000) < 1 / (1 + np.exp(-(x @ true + 0.5)))).astype(float)
    np.testing.assert_allclose(fit(x, y, ridge=1e-3), [1.5, -1.0, 0.0, 0.5], atol=0.15)
    apart = fit(x, (x[:, 0] > 0).astype(float), ridge=1.0)
    assert np.isfinite(apart).all() and apart[0] > 5


def test_a_classifier_scores_only_what_it_has_not_seen() -> None:
    rng = np.random.default_rng(4)
    noise = np.hstack([rng.standard_normal((200, 80)), np.ones((200, 1))])
    labels = np.repeat([1.0, 0.0], 100)
    scores = cross_fitted(noise, labels, seed=1)
    assert auc(Scores(scores[:100], scores[100:])).value < 0.6, "labels that mean nothing cannot be learned"
    planted = noise.copy()
    planted[:100, 0] += 5
    scores = cross_fitted(planted, labels, seed=1)
    assert auc(Scores(scores[:100], scores[100:])).value > 0.9


def test_canaries_of_both_kinds_are_alike_and_never_the_same() -> None:
    words = [f"{first}{second}{third}x" for first, second, third in product(ascii_lowercase, repeat=3)]
    drawn = canaries(words, 7, 200, 1000, 200)
    sizes = [len(texts) for texts in (drawn.members, drawn.held_out, drawn.control)]
    assert sizes == [200, 1000, 200]
    phrases = [text.split()[-(KNOWN + SECRET) :] for text in (*drawn.members, *drawn.held_out, *drawn.control)]
    dealt = [word.removesuffix(".") for phrase in phrases for word in phrase]
    assert len(set(dealt)) == len(dealt) == 1400 * (KNOWN + SECRET) and set(dealt) <= set(words)
    assert canaries(words, 7, 200, 1000, 200) == drawn != canaries(words, 8, 200, 1000, 200)
    assert blind(drawn.members, drawn.held_out).value < LIMIT


def test_few_words_are_dealt_again_only_when_all_have_come() -> None:
    words = [f"word{letter}" for letter in ascii_lowercase[:20]]
    phrases = [text[:-1].split()[-(KNOWN + SECRET) :] for text in canaries(words, 1, 10, 0).members]
    with pytest.raises(InvalidRequest, match="A canary has 8 words"):
        canaries(words[:7], 1, 1, 0)
    for deal in range(5):  # 20 words are two phrases of 8, and four are left over
        first, second = phrases[2 * deal : 2 * deal + 2]
        assert len({*first, *second}) == 16


def test_words_are_what_a_model_writes_in_one_token() -> None:
    spelled = [" oak", " maple", "maple", " Maple", " maples", " maple2", *(f" tree{one}" for one in ascii_lowercase)]
    spelled += [f" leaf{one}{two}" for one, two in product("abcdefg", repeat=2)]
    found = words_of(Tokenizer(Vocabulary(tuple(spelled), TOKENS).core()))
    assert {"maple", "maples", "treea"} <= set(found) and not {"oak", "Maple", "maple2"} & set(found)
    assert list(found) == sorted(found)
    with pytest.raises(InvalidRequest, match="Canaries need 64 words of one token and the model's vocabulary has 26"):
        words_of(Tokenizer(Vocabulary(tuple(spelled[6:32]), TOKENS).core()))


def test_texts_that_differ_of_themselves_are_seen() -> None:
    drawn = canaries(WORDS, 7, 200, 400)
    newer = [text.replace("Say ", "Now say ") for text in drawn.members]
    assert blind(newer, drawn.held_out).value > LIMIT
