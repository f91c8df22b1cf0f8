"""Small helpers to write down how a clause came out."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.spec.claim import Check, Clause

NOT_IN_QUICK = "measured in a full run only"


def judged(text: str, holds: bool, figure: str, check: Check = "exact") -> Clause:
    return Clause(text, "passed" if holds else "failed", figure, check)


def both(one: Clause, other: Clause) -> Clause:
    """The same clause on two stages: it holds when it holds on both."""
    holds = one.status == other.status == "passed"
    return Clause(one.text, "passed" if holds else "failed", f"{one.figure}; {other.figure}", one.check)


def left_open(text: str, why: str, check: Check = "effect") -> Clause:
    return Clause(text, "open", why, check)


def mutant_run(what: str, clauses: Sequence[Clause]) -> Clause:
    """Passed when the mutant failed at least one of the clauses it was put to."""
    failed = [clause for clause in clauses if clause.status == "failed"]
    found = "; ".join(f"'{clause.text}' {clause.figure}" for clause in failed) or "it went unnoticed"
    return Clause(what, "passed" if failed else "failed", found)


def every_mutant(what: str, clauses: Sequence[Clause]) -> Clause:
    """Passed when each of the clauses, every one put to a mutant of its own, failed."""
    caught = mutant_run(what, clauses)
    return caught if all(clause.status == "failed" for clause in clauses) else judged(what, False, caught.figure)


def above_one(text: str, ratios: dict[str, tuple[float, tuple[float, float]]], note: str) -> Clause:
    """An effect clause over ratios that must all lie above 1 with their whole interval."""
    holds = all(low > 1 for _, (low, _) in ratios.values())
    figure = ", ".join(f"{name} {mean:.2f}x [{low:.2f}, {high:.2f}]" for name, (mean, (low, high)) in ratios.items())
    return judged(text, holds, f"{figure}; {note}", "effect")
