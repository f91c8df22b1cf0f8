"""Families whose state is one number or a pair: sums, clocks, greatest divisors, digits, walks, Collatz."""

from __future__ import annotations

from itertools import accumulate
from random import Random
from typing import Any

from headrace.evidence.procbench.task import Drawn, Family, Machine, field_of, join, numbers_of

HOURS = 12
MOVES = {"N": (0, 1), "E": (1, 0), "S": (0, -1), "W": (-1, 0)}


def _sum_draw(rng: Random, length: int) -> Drawn:
    values = [rng.randint(1, 9) for _ in range(length + 1)]
    return Drawn(f"Start: {values[0]}\nNumbers: {join(values[1:])}", tuple(accumulate(values))[1:])


def _sum_read(given: str) -> Machine:
    return Machine(int(field_of(given, "Start")), numbers_of(field_of(given, "Numbers")))


def _sum_step(state: Any, operation: Any) -> int:
    return int(state) + int(operation)


def _clock_draw(rng: Random, length: int) -> Drawn:
    start, moves = rng.randrange(HOURS), [rng.choice((-5, -3, -2, -1, 1, 2, 4, 7)) for _ in range(length)]
    hours = tuple((start + total) % HOURS for total in accumulate(moves))
    return Drawn(f"Start: {start}\nMoves: {join(f'{move:+d}' for move in moves)}", hours)


def _clock_read(given: str) -> Machine:
    return Machine(int(field_of(given, "Start")), numbers_of(field_of(given, "Moves")))


def _clock_step(state: Any, operation: Any) -> int:
    hour = int(state)
    for _ in range(abs(operation)):
        hour += 1 if operation > 0 else -1
        hour = 0 if hour >= HOURS else HOURS - 1 if hour < 0 else hour
    return hour


def _gcd_draw(rng: Random, length: int) -> Drawn:
    """Runs Euclid's algorithm backwards from (g, 0), so that it takes exactly `length` steps."""
    pairs = [(rng.randint(1, 4), 0)]
    for number in range(length):
        low, high = 2 if number == 0 else 1, 3 if length < 8 else 2
        big, small = pairs[-1]
        pairs.append((rng.randint(low, high) * big + small, big))
    states = tuple(reversed(pairs[:-1]))
    return Drawn(f"Pair: {join(pairs[-1])}\nSteps: {length}", states)


def _gcd_read(given: str) -> Machine:
    return Machine(numbers_of(field_of(given, "Pair")), (None,) * int(field_of(given, "Steps")))


def _gcd_step(state: Any, operation: Any) -> tuple[int, int]:
    big, small = state
    return (small, big % small) if small else (big, 0)


def _digits_draw(rng: Random, length: int) -> Drawn:
    """Draws the digits first and builds the number from them by Horner's rule."""
    base = rng.choice((2, 3, 5, 8))
    digits = [rng.randrange(base) for _ in range(length - 1)] + [rng.randrange(1, base)]
    quotients = [0]
    for digit in reversed(digits):
        quotients.append(quotients[-1] * base + digit)
    states = tuple((quotients[length - 1 - number], digit) for number, digit in enumerate(digits))
    return Drawn(f"Number: {quotients[-1]}\nBase: {base}\nSteps: {length}", states)


def _digits_read(given: str) -> Machine:
    base, steps = int(field_of(given, "Base")), int(field_of(given, "Steps"))
    return Machine((int(field_of(given, "Number")), 0), (base,) * steps)


def _digits_step(state: Any, operation: Any) -> tuple[int, int]:
    return divmod(state[0], operation)


def _walk_draw(rng: Random, length: int) -> Drawn:
    here, words, states = complex(rng.randint(0, 9), rng.randint(0, 9)), [], []
    start = (int(here.real), int(here.imag))
    for _ in range(length):
        way, far = rng.choice("NESW"), rng.randint(1, 5)
        here += {"N": 1j, "E": 1, "S": -1j, "W": -1}[way] * far
        words.append(f"{way}{far}")
        states.append((int(here.real), int(here.imag)))
    return Drawn(f"Start: {join(start)}\nMoves: {join(words)}", tuple(states))


def _walk_read(given: str) -> Machine:
    moves = tuple((word[0], int(word[1:])) for word in field_of(given, "Moves").split(", "))
    return Machine(numbers_of(field_of(given, "Start")), moves)


def _walk_step(state: Any, operation: Any) -> tuple[int, int]:
    (dx, dy), far = MOVES[operation[0]], operation[1]
    return state[0] + dx * far, state[1] + dy * far


def _collatz_draw(rng: Random, length: int) -> Drawn:
    start = rng.randint(3, 60)
    states, value = [], start
    for _ in range(length):
        value = (value // 2, 3 * value + 1)[value & 1]
        states.append(value)
    return Drawn(f"Start: {start}\nSteps: {length}", tuple(states))


def _collatz_read(given: str) -> Machine:
    return Machine(int(field_of(given, "Start")), (None,) * int(field_of(given, "Steps")))


def _collatz_step(state: Any, operation: Any) -> int:
    half, odd = divmod(int(state), 2)
    return 6 * half + 4 if odd else half


FAMILIES = (
    Family(
        "running_sum",
        "Add the numbers to the start value one at a time, in order. The state is the total so far.",
        "numbers",
        _sum_draw,
        _sum_read,
        _sum_step,
    ),
    Family(
        "clock",
        "A clock shows the hours 0 to 11. Move its hand by each move in order: plus is forwards, minus is backwards;"
        " after 11 comes 0. The state is the hour.",
        "numbers",
        _clock_draw,
        _clock_read,
        _clock_step,
    ),
    Family(
        "gcd",
        "Take the pair a, b. At each step the new pair is b, then the remainder of a divided by b."
        " The state is the pair.",
        "numbers",
        _gcd_draw,
        _gcd_read,
        _gcd_step,
    ),
    Family(
        "digits",
        "At each step divide the number by the base; the quotient is the next number."
        " The state is the quotient, then the remainder.",
        "numbers",
        _digits_draw,
        _digits_read,
        _digits_step,
    ),
    Family(
        "walk",
        "A robot stands at x, y. N adds to y, S subtracts from y, E adds to x, W subtracts from x."
        " Make the moves in order. The state is x, y.",
        "numbers",
        _walk_draw,
        _walk_read,
        _walk_step,
    ),
    Family(
        "collatz",
        "At each step an even number is halved; an odd number is tripled and 1 is added. The state is the number.",
        "numbers",
        _collatz_draw,
        _collatz_read,
        _collatz_step,
    ),
)
