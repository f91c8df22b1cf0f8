"""What a procedure family is, and the oracle interpreter that runs one from its question alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Literal, TypeAlias

from headrace.spec.errors import InvalidRequest

State: TypeAlias = "int | str | tuple[int, ...]"
Form: TypeAlias = Literal["numbers", "text"]
EMPTY = "empty"
LONGEST = 128


@dataclass(frozen=True, slots=True)
class Drawn:
    """A generated instance: the question's data as text, and the gold state after each step."""

    given: str
    states: tuple[State, ...]


@dataclass(frozen=True, slots=True)
class Machine:
    """The oracle's reading of a question: the state before step 1, and one operation a step."""

    start: State
    operations: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of explicit procedure (ProcBench, Fujisawa et al. 2024).

    `draw(rng, length)` makes an instance whose gold states come from its own construction; `read` and `step`
    are the oracle, which sees the text only, so that the two check each other. `alphabet`: the symbols of a
    text state, in order; a number state needs none.
    """

    name: str
    rule: str
    form: Form
    draw: Callable[[Random, int], Drawn]
    read: Callable[[str], Machine]
    step: Callable[[State, object], State]
    alphabet: str = ""

    def off_by_one(self, state: State) -> State:
        """The state with its last element one too high; it always differs from `state`."""
        if isinstance(state, int):
            return state + 1
        if isinstance(state, tuple):
            return (*state[:-1], state[-1] + 1) if state else (1,)
        if not state:
            return self.alphabet[0]
        last = self.alphabet.index(state[-1])
        return state[:-1] + self.alphabet[(last + 1) % len(self.alphabet)]


@dataclass(frozen=True, slots=True)
class Task:
    """One question of `length` steps; `gold[k]` is the state after step k + 1, as text."""

    family: str
    seed: int
    length: int
    rule: str
    form: Form
    given: str
    gold: tuple[str, ...]


def show(state: State) -> str:
    """A state as an answer writes it: numbers with commas, letters as they are, or the word 'empty'."""
    if isinstance(state, tuple):
        return ", ".join(map(str, state)) or EMPTY
    return str(state) or EMPTY


def make_task(family: Family, length: int, seed: int) -> Task:
    """The task of a family at a length; the same arguments always give the same task.

    Raises InvalidRequest for a length outside 1 to 128.
    """
    if not 1 <= length <= LONGEST:
        raise InvalidRequest(f"length is {length}; give a number of steps from 1 to {LONGEST}.", "length")
    drawn = family.draw(Random(f"{family.name}/{length}/{seed}"), length)
    return Task(family.name, seed, length, family.rule, family.form, drawn.given, tuple(map(show, drawn.states)))


def interpret(family: Family, given: str, slip: int | None = None) -> list[str]:
    """The oracle's states for a question; with `slip`, the off-by-one mutant at that step (1 is the first).

    The mutant goes on from its wrong state, as a reader who slipped would.
    """
    machine, states = family.read(given), []
    state = machine.start
    for number, operation in enumerate(machine.operations, 1):
        state = family.step(state, operation)
        if number == slip:
            state = family.off_by_one(state)
        states.append(show(state))
    return states


def field_of(given: str, name: str) -> str:
    """The text after `name: ` on its own line of a question."""
    for line in given.splitlines():
        if line.startswith(f"{name}: "):
            return line[len(name) + 2 :]
    raise InvalidRequest(f"The question has no line '{name}: '; give one made by this benchmark.", name)


def numbers_of(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(", ")) if text and text != EMPTY else ()


def join(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
