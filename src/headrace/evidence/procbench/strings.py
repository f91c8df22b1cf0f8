"""Families whose state is a string: replacement, shifts, automata, cells, brackets, run lengths."""

from __future__ import annotations

from itertools import groupby
from random import Random
from typing import Any

from headrace.evidence.procbench.task import Drawn, Family, Machine, field_of, numbers_of

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SMALL = "abcde"
OPEN, CLOSE = "([{", ")]}"
CELLS = 9


def _replace_draw(rng: Random, length: int) -> Drawn:
    text = "".join(rng.choice(SMALL) for _ in range(8))
    start, words, states = text, [], []
    for _ in range(length):
        old = rng.choice(sorted(set(text)))
        new = rng.choice([letter for letter in SMALL if letter != old])
        text = text.replace(old, new, 1)
        words.append(f"{old}>{new}")
        states.append(text)
    return Drawn(f"Text: {start}\nReplacements: {' '.join(words)}", tuple(states))


def _replace_read(given: str) -> Machine:
    return Machine(field_of(given, "Text"), tuple(field_of(given, "Replacements").split()))


def _replace_step(state: Any, operation: Any) -> str:
    letters = list(state)
    if operation[0] in letters:
        letters[letters.index(operation[0])] = operation[2]
    return "".join(letters)


def _shift_draw(rng: Random, length: int) -> Drawn:
    """Gold by the total shift so far, not letter by letter of the last state."""
    text, shifts = "".join(rng.choice(LETTERS) for _ in range(5)), [rng.randint(1, 4) for _ in range(length)]
    states, total = [], 0
    for shift in shifts:
        total += shift
        turned = LETTERS[total % 26 :] + LETTERS[: total % 26]
        states.append(text.translate(str.maketrans(LETTERS, turned)))
    return Drawn(f"Text: {text}\nShifts: {', '.join(map(str, shifts))}", tuple(states))


def _shift_read(given: str) -> Machine:
    return Machine(field_of(given, "Text"), numbers_of(field_of(given, "Shifts")))


def _shift_step(state: Any, operation: Any) -> str:
    return "".join(chr((ord(letter) - ord("a") + operation) % 26 + ord("a")) for letter in state)


def _automaton_draw(rng: Random, length: int) -> Drawn:
    table = {letter + bit: rng.choice(SMALL) for letter in SMALL for bit in "01"}
    state, bits, states = rng.choice(SMALL), "", []
    start = state
    for _ in range(length):
        bits += rng.choice("01")
        state = table[state + bits[-1]]
        states.append(state)
    rows = " ".join(f"{key}>{value}" for key, value in table.items())
    return Drawn(f"Table: {rows}\nStart: {start}\nInput: {bits}", tuple(states))


def _automaton_read(given: str) -> Machine:
    table = field_of(given, "Table")
    return Machine(field_of(given, "Start"), tuple((table, bit) for bit in field_of(given, "Input")))


def _automaton_step(state: Any, operation: Any) -> str:
    table, bit = operation
    return str(table[table.index(f"{state}{bit}>") + 3])


def _cells_draw(rng: Random, length: int) -> Drawn:
    """Gold on one integer by shifts; the oracle works cell by cell."""
    full = (1 << CELLS) - 1
    row = rng.randint(1, full)
    start, states = f"{row:0{CELLS}b}", []
    for _ in range(length):
        left, right = row >> 1 | (row & 1) << CELLS - 1, (row << 1 & full) | row >> CELLS - 1
        row = left ^ (row | right)
        states.append(f"{row:0{CELLS}b}")
    return Drawn(f"Cells: {start}\nSteps: {length}", tuple(states))


def _cells_read(given: str) -> Machine:
    return Machine(field_of(given, "Cells"), (None,) * int(field_of(given, "Steps")))


def _cells_step(state: Any, operation: Any) -> str:
    row = []
    for at, cell in enumerate(state):
        left, right = state[at - 1], state[(at + 1) % len(state)]
        quiet = cell == right == "0"
        row.append(left if quiet else "1" if left == "0" else "0")
    return "".join(row)


def _brackets_draw(rng: Random, length: int) -> Drawn:
    text, stack, states = "", "", []
    for _ in range(length):
        if stack and (len(stack) > 5 or rng.random() < 0.45):
            text += CLOSE[OPEN.index(stack[-1])]
            stack = stack[:-1]
        else:
            text += rng.choice(OPEN)
            stack += text[-1]
        states.append(stack)
    return Drawn(f"Brackets: {text}", tuple(states))


def _brackets_read(given: str) -> Machine:
    return Machine("", tuple(field_of(given, "Brackets")))


def _brackets_step(state: Any, operation: Any) -> str:
    return str(state[:-1] if operation in CLOSE else state + operation)


def _runs_draw(rng: Random, length: int) -> Drawn:
    text = ""
    while len(text) < length:
        letter = rng.choice([one for one in SMALL if not text.endswith(one)])
        text += letter * rng.randint(1, 3)
    text = text[:length]
    states = tuple(
        "".join(f"{letter}{len(list(run))}" for letter, run in groupby(text[: number + 1])) for number in range(length)
    )
    return Drawn(f"Text: {text}", states)


def _runs_read(given: str) -> Machine:
    return Machine("", tuple(field_of(given, "Text")))


def _runs_step(state: Any, operation: Any) -> str:
    if state and state[-2] == operation:
        return f"{state[:-1]}{int(state[-1]) + 1}"
    return f"{state}{operation}1"


FAMILIES = (
    Family(
        "replace",
        "For each replacement x>y change the first x in the text to y. The state is the text.",
        "text",
        _replace_draw,
        _replace_read,
        _replace_step,
        SMALL,
    ),
    Family(
        "shift",
        "For each shift move every letter forward in the alphabet by that many places; after z comes a."
        " The state is the text.",
        "text",
        _shift_draw,
        _shift_read,
        _shift_step,
        LETTERS,
    ),
    Family(
        "automaton",
        "A machine reads one digit a step. In the table 'a0>c' says: in state a, on reading 0, go to state c."
        " The state is the machine's state.",
        "text",
        _automaton_draw,
        _automaton_read,
        _automaton_step,
        SMALL,
    ),
    Family(
        "cells",
        "The cells form a ring of 0 and 1. All change at once: a cell with a 1 in it or in its right neighbour"
        " becomes the opposite of its left neighbour; any other cell becomes its left neighbour."
        " The state is the row of cells.",
        "text",
        _cells_draw,
        _cells_read,
        _cells_step,
        "01",
    ),
    Family(
        "brackets",
        "Read the brackets from left to right, one a step. The state is the string of brackets still open"
        " (write 'empty' when there are none).",
        "text",
        _brackets_draw,
        _brackets_read,
        _brackets_step,
        OPEN,
    ),
    Family(
        "runs",
        "Read the text one letter a step. The state is the run-length code of the letters read so far:"
        " each run as its letter and its length, such as a2b1.",
        "text",
        _runs_draw,
        _runs_read,
        _runs_step,
        "123456789",
    ),
)
