"""Families whose state is a list of numbers: rotations, swaps, sorting, insertion and deletion, stack, queue."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any

from headrace.evidence.procbench.task import Drawn, Family, Machine, field_of, join, numbers_of


def _words(given: str, name: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(part.split()) for part in field_of(given, name).split("; "))


def _distinct(rng: Random, count: int) -> list[int]:
    return rng.sample(range(1, 10 + 2 * count), count)


def _rotate_draw(rng: Random, length: int) -> Drawn:
    values, turns = _distinct(rng, 6), [rng.randint(1, 5) for _ in range(length)]
    row, states = deque(values), []
    for turn in turns:
        row.rotate(-turn)
        states.append(tuple(row))
    return Drawn(f"List: {join(values)}\nTurns: {join(turns)}", tuple(states))


def _rotate_read(given: str) -> Machine:
    return Machine(numbers_of(field_of(given, "List")), numbers_of(field_of(given, "Turns")))


def _rotate_step(state: Any, operation: Any) -> tuple[int, ...]:
    return tuple(state[operation:] + state[:operation])


def _swap_draw(rng: Random, length: int) -> Drawn:
    """Tracks where each value is, and reads the list off the places."""
    values, pairs, states = _distinct(rng, 5), [], []
    place = {value: number for number, value in enumerate(values, 1)}
    for _ in range(length):
        one, other = rng.sample(range(1, 6), 2)
        pairs.append(f"{one} {other}")
        place = {v: other if p == one else one if p == other else p for v, p in place.items()}
        states.append(tuple(sorted(place, key=place.__getitem__)))
    return Drawn(f"List: {join(values)}\nSwaps: {'; '.join(pairs)}", tuple(states))


def _swap_read(given: str) -> Machine:
    return Machine(numbers_of(field_of(given, "List")), _words(given, "Swaps"))


def _swap_step(state: Any, operation: Any) -> tuple[int, ...]:
    row, (one, other) = list(state), (int(word) - 1 for word in operation)
    row[one], row[other] = row[other], row[one]
    return tuple(row)


def _sort_draw(rng: Random, length: int) -> Drawn:
    """After k steps the k smallest lead in order and the rest keep theirs."""
    values = _distinct(rng, length + 1)
    ranked, states = sorted(values), []
    for count in range(1, length + 1):
        front = ranked[:count]
        states.append((*front, *(value for value in values if value not in front)))
    return Drawn(f"List: {join(values)}\nSteps: {length}", tuple(states))


def _sort_read(given: str) -> Machine:
    return Machine(numbers_of(field_of(given, "List")), tuple(range(int(field_of(given, "Steps")))))


def _sort_step(state: Any, operation: Any) -> tuple[int, ...]:
    row = list(state)
    least = row.index(min(row[operation:]), operation)
    row.insert(operation, row.pop(least))
    return tuple(row)


def _edit_draw(rng: Random, length: int) -> Drawn:
    values = _distinct(rng, 4)
    row, words, states = tuple(values), [], []
    for _ in range(length):
        if len(row) > 2 and (len(row) > 7 or rng.random() < 0.5):
            at = rng.randint(1, len(row))
            row = tuple(value for number, value in enumerate(row, 1) if number != at)
            words.append(f"delete {at}")
        else:
            at, value = rng.randint(1, len(row) + 1), rng.randint(10, 99)
            row = (*row[: at - 1], value, *row[at - 1 :])
            words.append(f"insert {value} {at}")
        states.append(row)
    return Drawn(f"List: {join(values)}\nEdits: {'; '.join(words)}", tuple(states))


def _edit_read(given: str) -> Machine:
    return Machine(numbers_of(field_of(given, "List")), _words(given, "Edits"))


def _edit_step(state: Any, operation: Any) -> tuple[int, ...]:
    row, at = list(state), int(operation[-1]) - 1
    if operation[0] == "insert":
        row.insert(at, int(operation[1]))
    else:
        del row[at]
    return tuple(row)


def _stack_draw(rng: Random, length: int) -> Drawn:
    row: tuple[int, ...] = ()
    words, states = [], []
    for _ in range(length):
        ways = ["push"] if len(row) < 2 else ["push", "add", "swap", "pop"] if len(row) < 6 else ["add", "pop"]
        way = rng.choice(ways)
        if way == "push":
            value = rng.randint(1, 9)
            row, way = (*row, value), f"push {value}"
        elif way == "add":
            row = (*row[:-2], sum(row[-2:]))
        else:
            row = (*row[:-2], row[-1], row[-2]) if way == "swap" else row[:-1]
        words.append(way)
        states.append(row)
    return Drawn(f"Program: {'; '.join(words)}", tuple(states))


def _stack_read(given: str) -> Machine:
    return Machine((), _words(given, "Program"))


def _stack_step(state: Any, operation: Any) -> tuple[int, ...]:
    stack = list(state)
    if operation[0] == "push":
        stack.append(int(operation[1]))
        return tuple(stack)
    top = stack.pop()
    if operation[0] == "add":
        stack.append(stack.pop() + top)
    elif operation[0] == "swap":
        under = stack.pop()
        stack += [top, under]
    return tuple(stack)


def _queue_draw(rng: Random, length: int) -> Drawn:
    """The queue after each step is a window of all values that ever joined."""
    joined, left, words, states = _distinct(rng, 2), 0, [], []
    start = tuple(joined)
    for _ in range(length):
        waiting = len(joined) - left
        if waiting > 1 and (waiting > 6 or rng.random() < 0.5):
            left += 1
            words.append("leave")
        else:
            joined.append(rng.randint(10, 99))
            words.append(f"join {joined[-1]}")
        states.append(tuple(joined[left:]))
    return Drawn(f"Queue: {join(start)}\nEvents: {'; '.join(words)}", tuple(states))


def _queue_read(given: str) -> Machine:
    return Machine(numbers_of(field_of(given, "Queue")), _words(given, "Events"))


def _queue_step(state: Any, operation: Any) -> tuple[int, ...]:
    return tuple(state[1:]) if operation[0] == "leave" else (*state, int(operation[1]))


FAMILIES = (
    Family(
        "rotate",
        "Rotate the list to the left by each turn in order: a turn of 1 moves the first item to the end."
        " The state is the list.",
        "numbers",
        _rotate_draw,
        _rotate_read,
        _rotate_step,
    ),
    Family(
        "swap",
        "Positions are counted from 1. For each pair swap the items at these two positions. The state is the list.",
        "numbers",
        _swap_draw,
        _swap_read,
        _swap_step,
    ),
    Family(
        "sort",
        "At step k take the smallest item from position k on, remove it and insert it at position k;"
        " positions are counted from 1. The state is the list.",
        "numbers",
        _sort_draw,
        _sort_read,
        _sort_step,
    ),
    Family(
        "edit",
        "Positions are counted from 1. 'insert v p' puts v at position p and moves later items back;"
        " 'delete p' removes the item at position p. The state is the list.",
        "numbers",
        _edit_draw,
        _edit_read,
        _edit_step,
    ),
    Family(
        "stack",
        "Run the program on an empty stack. 'push v' puts v on top; 'pop' removes the top; 'swap' exchanges the"
        " two top items; 'add' replaces them by their sum. The state is the stack, bottom first.",
        "numbers",
        _stack_draw,
        _stack_read,
        _stack_step,
    ),
    Family(
        "queue",
        "'join v' adds v at the end of the queue; 'leave' removes its first item. The state is the queue.",
        "numbers",
        _queue_draw,
        _queue_read,
        _queue_step,
    ),
)
