"""Non-interference: what a principal may not see changes no bit of what they do see.

Each example is a lattice of its own with two worlds drawn over it, played on a random llama in deterministic mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from headrace.evidence.interference import System, Tally, compare
from headrace.evidence.leaks import AMPLE, LEAKS, eviction_channel
from headrace.evidence.stage import Stage
from headrace.evidence.worlds import VIEWER, World, draw_pair

pytest.importorskip("bm25s", reason="bm25s is not installed: pip install 'headrace[ground]'")

QUICK, FULL, MOST_UNTIL_CAUGHT = 15, 1000, 100
SEVERAL_EVICT = 30
"""Pages of one pool that several labels' requests do not fit in together."""


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage.tiny(pages=1280) as stage:
        assert stage.executor.guarantees.bit_exact, "equal bits are promised in deterministic mode only"
        yield stage


def check(stage: Stage, examples: int, system: System) -> Tally:
    """The property; raises AssertionError with the first pair of worlds that can be told apart."""
    tally = Tally()

    @given(st.randoms(use_true_random=False))
    @settings(max_examples=examples, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    def same(rng: Random) -> None:
        assert compare(stage.executor, draw_pair(rng), system, tally)

    same()
    return tally


@pytest.mark.parametrize("system", [System(), System(AMPLE)], ids=["quotas", "one ample pool"])
def test_hidden_things_change_nothing(stage: Stage, system: System) -> None:
    tally = check(stage, QUICK, system)
    assert tally.pairs >= QUICK and tally.wrong_labels == 0
    assert tally.results and tally.cached, "the worlds must reach outputs and cached pages"


@pytest.mark.parametrize("leak", LEAKS)
def test_planted_leaks_are_caught(stage: Stage, leak: str) -> None:
    with pytest.raises(AssertionError):
        check(stage, MOST_UNTIL_CAUGHT, LEAKS[leak])


def test_quotas_close_the_eviction_channel(stage: Stage) -> None:
    assert eviction_channel(stage, 6, quotas=True) == 0
    assert eviction_channel(stage, 6, quotas=False) == pytest.approx(1)


def test_worlds_are_equal_where_the_viewer_may_look() -> None:
    different = 0
    for seed in range(200):
        pair = draw_pair(Random(seed))
        seen = [_seen(world) for world in pair]
        assert seen[0] == seen[1]
        different += pair[0] != pair[1]
    assert different > 180


def _seen(world: World) -> tuple:
    """What may be seen of a world, by its own description."""
    policy = world.policy
    passages = [one for one in world.passages if policy.may_read(VIEWER, one[1].label)]
    acts = []
    for act in world.acts:
        if policy.may_read(VIEWER, act.label):
            secret = act.more is not None and not policy.may_read(VIEWER, act.more.label)
            acts.append((act.kind, act.principal, act.label, act.text, None if secret else act.more, act.keep))
    return policy, passages, acts


@pytest.mark.prove
def test_hidden_things_change_nothing_full(stage: Stage, figures: dict) -> None:
    tally = check(stage, FULL, System())
    pool = check(stage, FULL // 5, System(AMPLE))
    figures.update(
        lattices=tally.pairs,
        seen=tally.observations,
        cached_tokens=tally.cached,
        labels_checked=tally.results,
        wrong_labels=tally.wrong_labels,
        differing=tally.differing,
        in_one_ample_pool=pool.pairs,
        differing_there=pool.differing,
        bits_by_eviction={"one pool": eviction_channel(stage, 40, False), "quotas": eviction_channel(stage, 40, True)},
    )
    assert tally.pairs >= FULL


@pytest.mark.prove
@pytest.mark.parametrize("leak", LEAKS)
def test_planted_leaks_are_caught_full(stage: Stage, leak: str) -> None:
    with pytest.raises(AssertionError):
        check(stage, MOST_UNTIL_CAUGHT, LEAKS[leak])


@pytest.mark.prove
def test_a_small_pool_tells_by_its_counters_alone(stage: Stage, figures: dict) -> None:
    """The channel that quotas close: evictions move hit counters, and nothing else."""
    tally = Tally()
    for seed in range(200):
        compare(stage.executor, draw_pair(Random(seed)), System(SEVERAL_EVICT), tally)
    figures.update(pairs=tally.pairs, told_apart_by_counters=tally.differing, by_anything_else=tally.beyond_counters)
    assert tally.differing and not tally.beyond_counters
