"""System 65's claim in its quick size, and its arithmetic against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.evidence.attempt_pool import Patience, Pool, adaptive, enough, patiences
from headrace.evidence.claims import adaptive_ttc
from headrace.evidence.claims.adaptive_ttc import AIM, adapted, pruned
from headrace.evidence.self_evaluation import auc_gain
from headrace.evidence.systems import system
from headrace.reason.statistics import auc

RNG = np.random.default_rng(3)
RIGHT = RNG.random((40, 8)) < 0.4
NOISY = np.round(RIGHT + RNG.standard_normal((40, 8)), 1)


def test_quick() -> None:
    found = adaptive_ttc.run("quick")
    assert tuple(clause.text for clause in found.clauses) == system(65).clauses
    assert [clause.status for clause in found.clauses] == ["open", "open", "open", "passed"]
    assert found.null_run.status == "passed" and found.numbers["positions_a_look"] == 1


@pytest.mark.parametrize("most", [1, 3, 8])
@pytest.mark.parametrize("good", [-9.0, 0.5, 1.5, 9.0])
def test_adaptive_sampling_is_what_a_loop_does(good: float, most: int) -> None:
    correct, taken = adaptive(NOISY, RIGHT, Patience(good, most))
    for row in range(40):
        outcomes = []
        for shift in range(8):
            order, used = [(k - shift) % 8 for k in range(8)], 0
            for used in range(1, most + 1):
                if NOISY[row, order[used - 1]] >= good:
                    break
            best = max(order[:used], key=lambda place: NOISY[row, place])
            outcomes.append((RIGHT[row, best], used))
        assert correct[row] == pytest.approx(np.mean([good for good, _ in outcomes]))
        assert taken[row] == pytest.approx(np.mean([used for _, used in outcomes]))


def pool(half: np.ndarray, end: np.ndarray) -> Pool:
    tokens = np.full(RIGHT.shape, 10)
    scores = {("probe", "half"): half, ("probe", "end"): end}
    return Pool(RIGHT, tokens, tokens // 2, scores)


def test_who_knows_all_loses_nothing_and_who_knows_nothing_loses() -> None:
    sure, blind = RIGHT.astype(float), RNG.random((40, 8))
    knowing = pool(sure, sure)
    clause, numbers = pruned(knowing, "probe")
    assert clause.status == "passed" and numbers == {"pruning": 0.0, "pruned_tokens": 0.75}
    clause, numbers = adapted(knowing, "probe", Patience(1.0, 8))
    assert numbers["gain_kept"] == pytest.approx(1.0) and knowing.best("probe").mean() == RIGHT.any(1).mean()
    assert clause.status == "failed", "two times in five right: more than two samples until the first right one"
    assert pruned(pool(blind, sure), "probe")[0].status == "failed"
    clause, numbers = pruned(pool(blind, blind), "probe")
    assert numbers["pruning"] == 0 and clause.status == "failed", "a best of all that gains nothing has nothing to lose"
    assert adapted(pool(blind, blind), "probe", Patience(0.5, 8))[0].status == "failed"


def test_patience_is_the_best_that_the_aim_allows() -> None:
    correct, taken = adaptive(NOISY, RIGHT, enough(NOISY, RIGHT, AIM))
    assert taken.mean() <= AIM
    for other in patiences(NOISY):
        right, used = adaptive(NOISY, RIGHT, other)
        assert used.mean() > AIM or right.mean() <= correct.mean()


def test_a_gain_of_auc_is_the_difference_of_two() -> None:
    flat, owners = RIGHT.ravel().tolist(), np.repeat(np.arange(40), 8).tolist()
    blind = RNG.random((40, 8))
    gain, (low, high) = auc_gain(NOISY, blind, RIGHT)
    both = [auc(scores.ravel().tolist(), flat, owners)[0] for scores in (NOISY, blind)]
    assert gain == pytest.approx(both[0] - both[1]) and low < gain < high
    assert auc_gain(NOISY, NOISY, RIGHT) == (0.0, (0.0, 0.0))
