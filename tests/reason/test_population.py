"""The bookkeeping a search carries along."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from headrace.reason.choice import Given
from headrace.reason.lognumber import from_logs
from headrace.reason.population import Population
from headrace.spec.errors import InvalidRequest


def test_a_search_in_log_weights() -> None:
    """Steps as a strategy makes them: weigh, look at the ESS, choose parents, go on."""
    state = Population.even("abcd")
    assert state.log_evidence == pytest.approx(0.0) and state.ess() == pytest.approx(4.0)
    state = state.reweight(from_logs([-900.0, -900.0 + math.log(3), -2000.0, -math.inf]))
    assert state.log_evidence == pytest.approx(-900.0)
    assert state.ess() == pytest.approx(1.6)
    parents = state.ancestors(Given([0.5]))
    assert parents == (0, 1, 1, 1)
    fresh = state.offspring(parents)
    assert fresh.particles == ("a", "b", "b", "b")
    assert fresh.ess() == pytest.approx(4.0) and fresh.log_evidence == pytest.approx(state.log_evidence)
    assert fresh.map(str.upper).particles == ("A", "B", "B", "B")


def test_fractions_stay_exact() -> None:
    state = Population.even("ab", Fraction(1)).reweight([Fraction(1, 3), Fraction(1)])
    assert (state.total, state.ess()) == (Fraction(2, 3), Fraction(8, 5))
    assert state.offspring((1, 1)).weights == (Fraction(1, 3), Fraction(1, 3))


def test_a_dead_population() -> None:
    state = Population.even("ab").reweight(from_logs([-math.inf, -math.inf]))
    assert state.ess() == 0 and state.log_evidence == -math.inf
    with pytest.raises(InvalidRequest):
        state.ancestors(Given([0.5]))
    with pytest.raises(ValueError):
        state.reweight([1.0])
