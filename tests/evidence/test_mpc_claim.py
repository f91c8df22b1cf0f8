"""The claim of computation on shares: in its quick size where SPU's environment is, open with the reason elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from evidence.test_engine_claims import judge
from headrace.evidence.claims import puma_mpc as claim
from headrace.evidence.secret import Charged, inverse_bound
from headrace.privacy.mpc.approximations import RECIPROCAL
from headrace.privacy.mpc.environment import worker_python
from headrace.privacy.mpc.price import Cost
from headrace.privacy.mpc.view import LEAST_BYTES, Finding


@pytest.mark.skipif(worker_python() is None, reason="the environment of SPU is not here; a full run makes it")
def test_secret_shares_quick() -> None:
    found = claim.run("quick")
    status = judge(found, 87)
    assert [status[text] for text in (claim.AGREES, claim.BOUNDED, claim.BLIND, claim.PRICED)] == ["passed"] * 4
    assert status[claim.TIMED] == "open"


def test_without_its_environment_every_clause_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "worker_python", lambda: None)
    found = claim.run("quick")
    assert {clause.status for clause in found.clauses} == {found.null_run.status} == {"open"}
    assert all("environment of SPU" in clause.figure for clause in found.clauses)


def test_what_differs_from_its_formula_is_told() -> None:
    formula = Cost(20, 8, 64)
    for measured, of_three, of_two in (
        (formula, True, True),
        (Cost(19, 8, 64), True, False),
        (Cost(17, 8, 64), False, False),
        (Cost(21, 8, 64), False, False),
        (Cost(20, 8, 65), False, False),
        (Cost(20, 7, 64), False, False),
    ):
        three, two = Charged("x", "aby3", measured, formula), Charged("x", "semi2k", measured, formula)
        assert (three.equal, two.equal) == (of_three, of_two)
        assert ("(formula 20, 8, 64)" in claim._cost(three)) == (measured != formula)
        assert bool(claim.fallen_away([three])) == (of_three and measured != formula)


def test_a_small_inverse_must_be_exact_too() -> None:
    """A fifth of 1 / 1000 is less than any absolute bound that larger inverses need."""
    x = np.geomspace(RECIPROCAL.low, RECIPROCAL.high, 64)
    steps = np.round(2**20 / x) / 2**20
    assert inverse_bound("reciprocal", RECIPROCAL, steps, 1 / x).holds
    for wrong in (np.where(x > 500, 0.8, 1) * steps, steps * (1 + 2 * RECIPROCAL.bound), np.where(x > 500, 0, steps)):
        found = inverse_bound("reciprocal", RECIPROCAL, wrong, 1 / x)
        assert not found.holds and "over 1 to 1024" in str(found)


def test_a_mutant_that_one_protocol_lets_through_is_told() -> None:
    seen, unseen = Finding("shares", LEAST_BYTES, 50.0), Finding("shares", LEAST_BYTES, 0.5)
    assert claim.mutants_caught({"aby3": [unseen, seen], "semi2k": [seen]}).status == "passed"
    missed = claim.mutants_caught({"aby3": [seen], "semi2k": [unseen]})
    assert missed.status == "failed" and "semi2k unnoticed" in missed.figure
