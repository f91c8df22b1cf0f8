"""The 102 published systems that Headrace unites, read from one data file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, TypeAlias

from headrace.spec.claim import Check
from headrace.spec.errors import InvalidRequest

State: TypeAlias = Literal["planned", "built", "exact", "effect", "modelled"]
Grade: TypeAlias = Literal["E", "F", "M"]
STATES: tuple[State, ...] = ("planned", "built", "exact", "effect", "modelled")
GRADE_CHECK: dict[Grade, Check] = {"E": "exact", "F": "effect", "M": "modelled"}


@dataclass(frozen=True, slots=True)
class System:
    """One row of the catalogue: `clauses` say when it works here, `grades` how that is to be shown.

    `state` is where the row starts; what its claim's results add is `registry.derive_state`.
    """

    number: int
    id: str
    title: str
    kind: str
    contributes: str
    lives_in: tuple[str, ...]
    grades: tuple[Grade, ...]
    clauses: tuple[str, ...]
    state: State


@cache
def load_systems() -> tuple[System, ...]:
    """All systems in order of their number."""
    rows = json.loads(files("headrace.evidence").joinpath("systems.json").read_text(encoding="utf-8"))
    return tuple(_system(row) for row in rows)


def _system(row: dict[str, Any]) -> System:
    lists = {key: tuple(value) for key, value in row.items() if isinstance(value, list)}
    return System(**{**row, **lists})


def system(number: int) -> System:
    """Raises InvalidRequest for a number outside 1 to 102."""
    for row in load_systems():
        if row.number == number:
            return row
    raise InvalidRequest(f"There is no system {number}; give a number from 1 to {len(load_systems())}.", "system")
