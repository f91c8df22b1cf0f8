"""The claim of attribute inference in its quick size, and the depth it rests on."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.evidence.claims import synthpai
from headrace.evidence.depth import depths, rejected, shift
from headrace.evidence.systems import system


def test_synthpai_quick() -> None:
    pytest.importorskip("scipy", reason="scipy is not installed: pip install 'headrace[privacy]'")
    found = synthpai.run("quick")
    assert tuple(clause.text for clause in found.clauses) == system(21).clauses
    assert [clause.status for clause in found.clauses] == ["passed", "open", "open", "open"]
    assert found.null_run.status == "passed", found.null_run.figure
    assert found.numbers["outright"] > found.numbers["silent"]  # type: ignore[operator]


def cloud(count: int, away: float, seed: int, width: int = 16) -> np.ndarray:
    """Unit vectors around an axis, `away` of it pulled towards another one."""
    rng = np.random.default_rng(seed)
    found = 0.3 * rng.standard_normal((count, width))
    found[:, 0] += 1 - away
    found[:, 1] += away
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_depth_is_two_less_the_mean_distance() -> None:
    vectors, reference = cloud(7, 0.2, 0), cloud(11, 0, 1)
    brute = [2 - np.mean([1 - one @ other for other in reference]) for one in vectors]
    assert depths(vectors, reference) == pytest.approx(brute)


@pytest.mark.parametrize("decimals", [9, 1])
def test_the_test_is_the_rank_sum_test(decimals: int) -> None:
    """Against SciPy's, with ties and without."""
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(2)
    one, other = (np.round(rng.random(count), decimals) for count in (30, 23))
    found = shift(one, other)
    known = stats.mannwhitneyu(one, other, use_continuity=False, method="asymptotic")
    assert found.p == pytest.approx(known.pvalue) and found.q == pytest.approx(1 - known.statistic / (30 * 23))
    pairs = [(x < y) + (x == y) / 2 for x in one for y in other]
    assert found.q == pytest.approx(np.mean(pairs))
    assert shift(np.ones(3), np.ones(4)).p == 1


def test_two_sets_are_told_apart_and_one_is_not() -> None:
    model = cloud(96, 0, 3)
    far, _ = synthpai.judge_shift(model, cloud(48, 0.3, 4), 100)
    near, _ = synthpai.judge_shift(model, cloud(48, 0, 5), 100)
    assert (far.status, near.status) == ("passed", "failed")
    assert rejected(model, 200) < 25


def test_every_kind_of_damage_is_refused() -> None:
    clause = synthpai.by_seed_and_by_file(synthpai.SIZES["quick"])
    assert clause.status == "passed" and f"{len(synthpai.DAMAGES)} of {len(synthpai.DAMAGES)}" in clause.figure


def test_damage_that_goes_through_fails_the_clause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(synthpai.DAMAGES, "another text", synthpai._with(text="Sound as well."))
    assert synthpai.by_seed_and_by_file(synthpai.SIZES["quick"]).status == "failed"
