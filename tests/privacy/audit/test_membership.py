"""Attacks on one document at a time against their formulas, and on planted members and none."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest

from headrace.privacy.audit import membership
from headrace.privacy.audit.audit import losses_of, report
from headrace.privacy.audit.membership import ATTACKS, Measured, attack
from headrace.privacy.audit.report import Report, lines, table
from headrace.spec.errors import InvalidRequest

pytest.importorskip("torch", reason="gradients need torch")

from headrace.adapt.gradients import Examined

TOKENS = 20


def document(number: int, memory: float, examined: bool = True) -> Measured:
    """Its base finds it as hard as its number says; `memory` is what the tuned model has learned of it by heart."""
    rng = np.random.default_rng(number)
    base = -rng.exponential(rng.uniform(1, 4), TOKENS)
    tuned = base * rng.uniform(0.7, 0.8) * (1 - memory)
    seen = None
    if examined:
        norms = np.exp(0.3 * rng.standard_normal(6)) * (1 - 0.8 * memory)
        seen = Examined(tuned, np.full(TOKENS, -2.0), np.full(TOKENS, 1.0), norms)
    return Measured(f"document {number:05} " + "x" * (number % 5), tuned, base, seen)


def test_scores_are_those_of_the_papers() -> None:
    tuned = np.array([-1.0, -4.0, -0.5, -2.5, -3.0])
    base = np.array([-2.0, -5.0, -1.0, -4.0, -3.0])
    seen = Examined(tuned, np.full(5, -2.0), np.array([1.0, 2.0, 1.0, 0.5, 1.0]), np.array([3.0, 4.0]))
    one = Measured("five tokens here", tuned, base, seen)
    assert membership.loss(one) == pytest.approx(-2.2)
    assert membership.zlib_ratio(one) == pytest.approx(-11 / len(zlib.compress(b"five tokens here")))
    assert membership.min_k(one) == -4
    assert membership.min_k_plus(one) == -1
    assert membership.reference(one) == pytest.approx(-2.2 + 3.0)
    assert membership.loss_ratio(one) == pytest.approx(-11 / 15)
    assert membership.gradient_norm(one) == pytest.approx(-np.log(5))


def test_every_attack_finds_what_was_learned_by_heart_and_the_ratio_most() -> None:
    members = [document(number, 0.3) for number in range(100)]
    held_out = [document(number, 0.0) for number in range(1000, 1300)]
    found = report("planted", members, held_out, [True] * 30 + [False] * 70)
    assert tuple(one.attack for one in found.told) == ATTACKS
    assert all(one.auc.low > 0.5 for one in found.told)
    assert found.by("loss-ratio").tpr.value > 0.95 > found.by("loss").tpr.value
    assert found.gain is not None and found.gain.low > 0 and found.extracted is not None
    assert found.by("supervised").auc.value > 0.95
    assert not found.passed and found.worst == found.strongest.tpr.value and "fails" in found.verdict
    assert Report.from_json({**found.to_json()}) == found
    assert len(table(found)) == 8 and lines(found)[-1] == found.verdict and "30.0%" not in found.verdict


def test_nothing_is_found_where_nothing_was_learned() -> None:
    members = [document(number, 0.0) for number in range(200)]
    held_out = [document(number, 0.0) for number in range(1000, 1400)]
    found = report("planted", members, held_out, [False] * 200)
    assert found.passed and found.by("loss-ratio").auc.contains_chance and found.by("loss-ratio").tpr.contains_chance
    only = replace(members[0], base=None, examined=None)
    bare = attack([only] * 3, [replace(one, base=None, examined=None) for one in held_out])
    assert list(bare) == ["loss", "zlib", "min-k"]
    losses = losses_of([only], held_out)
    assert losses.members == pytest.approx(-members[0].tuned.mean()) and losses.base_members is None
    assert losses.base_held_out is not None and losses.base_held_out > losses.held_out


def test_sets_that_differ_of_themselves_are_not_judged() -> None:
    members = [replace(document(number, 0.0, examined=False), text=f"new {number}") for number in range(100)]
    held_out = [replace(document(number, 0.0, examined=False), text=f"old {number}") for number in range(1000, 1300)]
    found = report("planted", members, held_out)
    assert not found.comparable and "not judged" in found.verdict and "differ of themselves" in lines(found)[1]
    few = report("planted", members[:3], [replace(one, text=f"new {at}") for at, one in enumerate(held_out)])
    assert few.comparable, "three documents do not show a difference"


def test_extraction_alone_fails_an_audit() -> None:
    members = [document(number, 0.0, examined=False) for number in range(50)]
    held_out = [document(number, 0.0, examined=False) for number in range(1000, 1200)]
    found = report("planted", members, held_out, [True] * 25 + [False] * 25, threshold=0.2)
    assert not found.passed and found.worst == 0.5 and "extraction reaches 50.0%" in found.verdict
    assert report("planted", members, held_out, threshold=0.2).passed
    with pytest.raises(InvalidRequest, match="There are no members"):
        report("planted", [], held_out)
