"""The ledger: reserved before used, all or nothing."""

from __future__ import annotations

import pytest

from headrace.spec.errors import InvalidRequest, PlanRejected
from headrace.spec.ledger import Ledger
from headrace.spec.options import EngineOptions

MIB = 2**20


def test_a_refused_plan_takes_nothing_and_names_all_it_needs() -> None:
    ledger = Ledger(100 * MIB)
    ledger.reserve("runtime", "runtime reserve", 10 * MIB)
    with pytest.raises(
        PlanRejected, match=r"needs 131 MiB but 100 MiB .*weights 90 MiB, state 30 MiB.*; 31457281 too many\."
    ):
        ledger.reserve_all(
            [("weights", "weights", 90 * MIB), ("state", "state", 30 * MIB + 1)], lambda excess: f"{excess} too many"
        )
    assert ledger.total == 10 * MIB and ledger.by_tag() == {"runtime": 10 * MIB}


def test_what_is_released_can_be_reserved_again() -> None:
    ledger = Ledger(10)
    item = ledger.reserve("state", "pages", 10)
    with pytest.raises(PlanRejected):
        ledger.reserve("weights", "weights", 1)
    ledger.release(item)
    assert ledger.reserve("weights", "weights", 10).bytes == ledger.total == 10


def test_file_maps_count_apart() -> None:
    ledger = Ledger(10)
    item = ledger.map_file("model.gguf", 1000)
    assert ledger.total == 0 and ledger.mapped == [item]
    ledger.release(item)
    assert ledger.mapped == []


@pytest.mark.parametrize("name", ["memory", "state_memory", "context", "step_tokens", "running", "queue", "threads"])
def test_options_below_one_are_refused_by_their_flag(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"--{name.replace('_', '-')} is 0; give at least 1"):
        EngineOptions(**{name: 0})
    assert getattr(EngineOptions(**{name: 1}), name) == 1
