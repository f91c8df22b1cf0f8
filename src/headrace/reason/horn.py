"""Rule bases in plain words: reading them, proving from them, and what of them a question needs, in which order.

Facts say "Anne is red.", rules "If someone is red and big then they are kind." or "If Anne is red then Bob is kind.".
What cannot be derived counts as false.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from headrace.spec.errors import InvalidRequest

ANYONE = "someone"

_FACT = re.compile(r"(\w+) is (\w+)\.?")
_RULE = re.compile(r"If (.+) then (\w+) (?:is|are) (\w+)\.?")
_PART = re.compile(r"(?:(\w+) (?:is|are) )?(\w+)")


class Atom(NamedTuple):
    """`who` has a quality; ANYONE in a rule."""

    who: str
    quality: str


@dataclass(frozen=True, slots=True)
class Statement:
    """`conditions` empty: a fact."""

    conclusion: Atom
    conditions: tuple[Atom, ...] = ()

    def for_goal(self, goal: Atom) -> tuple[Atom, ...] | None:
        """What it would take to conclude `goal` from it; None where it concludes something else."""
        if self.conclusion.quality != goal.quality or self.conclusion.who not in (goal.who, ANYONE):
            return None
        return tuple(Atom(goal.who if who == ANYONE else who, quality) for who, quality in self.conditions)


@dataclass(frozen=True, slots=True)
class RuleBase:
    """Premises and a query in words. `text` asks the query of any of the premises."""

    premises: tuple[str, ...]
    query: str

    def text(self, premises: Iterable[str] | None = None) -> str:
        told = "\n".join(self.premises if premises is None else premises)
        return (
            f"{told}\n\nWhat cannot be derived from these statements is false. "
            f"Is this true or false: {self.query}\n"
            f"First write down in short sentences what follows from what. End with 'Answer: True' or 'Answer: False'."
        )


def read_statement(text: str) -> Statement | None:
    """None where the words have another form."""
    if fact := _FACT.fullmatch(text.strip()):
        return Statement(Atom(fact[1], fact[2]))
    if not (rule := _RULE.fullmatch(text.strip())):
        return None
    parts = [_PART.fullmatch(part) for part in rule[1].split(" and ")]
    if None in parts or not (parts[0] and parts[0][1]):
        return None
    conditions: list[Atom] = []
    for part in parts:
        assert part is not None
        who = part[1] if part[1] not in (None, "they") else conditions[-1].who
        conditions.append(Atom(who, part[2]))
    return Statement(Atom(ANYONE if rule[2] == "they" else rule[2], rule[3]), tuple(conditions))


def read_query(text: str) -> Atom:
    """Raises InvalidRequest where the words have another form."""
    fact = _FACT.fullmatch(text.strip())
    if fact is None:
        raise InvalidRequest(f"The query {text!r} cannot be read; write it like 'Anne is red.'.", "query")
    return Atom(fact[1], fact[2])


def prove(premises: Sequence[str], query: str) -> list[int] | None:
    """Indices of the premises of one shortest-depth proof, by forward chaining to a fixpoint; None: not derivable."""
    read = [(index, statement) for index, text in enumerate(premises) if (statement := read_statement(text))]
    people = sorted({atom.who for _, s in read for atom in (s.conclusion, *s.conditions)} - {ANYONE})
    support: dict[Atom, tuple[int, tuple[Atom, ...]]] = {}
    while True:
        fresh: dict[Atom, tuple[int, tuple[Atom, ...]]] = {}
        for index, statement in read:
            for who in people if statement.conclusion.who == ANYONE else [statement.conclusion.who]:
                goal = Atom(who, statement.conclusion.quality)
                needed = statement.for_goal(goal)
                if goal not in support and goal not in fresh and needed is not None and support.keys() >= set(needed):
                    fresh[goal] = index, needed
        if not fresh:
            break
        support |= fresh
    goal = read_query(query)
    return sorted(_used(goal, support)) if goal in support else None


def _used(goal: Atom, support: dict[Atom, tuple[int, tuple[Atom, ...]]]) -> set[int]:
    index, needed = support[goal]
    return {index}.union(*(_used(atom, support) for atom in needed))


def organised(premises: Sequence[str], query: str, depth: int = 32) -> list[int]:
    """Indices of what the query may need, by backward chaining, each after what it builds on (2310.03309).

    A rule goes where no premise at all concludes one of its conditions; whether what is left holds is for the
    model to find. A premise that cannot be read is kept, at the front: what is not understood must not be lost.
    """
    read = {index: read_statement(text) for index, text in enumerate(premises)}
    found = [index for index, statement in read.items() if statement is None]
    known = [(index, statement) for index, statement in read.items() if statement is not None]
    _gather(read_query(query), known, depth, set(), found)
    return found


def _gather(goal: Atom, known: Sequence[tuple[int, Statement]], depth: int, seen: set[Atom], found: list[int]) -> None:
    if goal in seen or depth < 0:
        return
    seen.add(goal)
    for index, statement in known:
        needed = statement.for_goal(goal)
        if needed is None or not all(_spoken_of(atom, known) for atom in needed):
            continue
        for atom in needed:
            _gather(atom, known, depth - 1, seen, found)
        if index not in found:
            found.append(index)


def _spoken_of(goal: Atom, known: Sequence[tuple[int, Statement]]) -> bool:
    return any(statement.for_goal(goal) is not None for _, statement in known)
