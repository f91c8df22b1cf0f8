"""A published technique as a runnable claim."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Check: TypeAlias = Literal["exact", "effect", "modelled"]
Status: TypeAlias = Literal["passed", "failed", "open"]
Size: TypeAlias = Literal["quick", "full"]


@dataclass(frozen=True, slots=True)
class Clause:
    """One clause of the 'works here when' cell: what it says, how it came out, the figure or why it is open."""

    text: str
    status: Status
    figure: str
    check: Check = "exact"


@dataclass(frozen=True, slots=True)
class Evidence:
    """The outcome of one run of a claim. `null_run` is the mutant that must fail it.

    `code`: a digest of the code that judged it, by which a result that is older than its claim is known.
    """

    claim: str
    clauses: tuple[Clause, ...]
    null_run: Clause
    numbers: dict[str, float | int | str | list[float]]
    interval: tuple[float, float] | None
    machine: str
    size: Size
    commit: str = ""
    date: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """`system` is the row (1 to 102) of the catalogue; `run(size)` produces the evidence."""

    id: str
    system: int
    title: str
    baseline: str
    checks: tuple[Check, ...]
    budget: str
    run: Callable[[Size], Evidence] = field(compare=False)
