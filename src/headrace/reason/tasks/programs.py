"""PROGRAMS: code tasks with unit tests, in a language of our own that a small total interpreter runs.

A question shows what a function gives for four inputs; an answer is a program for it:

    f(0)=3, f(1)=4, f(2)=3, f(3)=4
    x%2+3

Six more inputs are hidden tests, which only the verdict runs. The language knows one variable, digits, brackets and
four operators; * and % bind closer than + and -, and operators of one rank go from left to right. The remainder has
the sign of its divisor and is 0 where that is 0. A program is cut off at LONGEST characters and ends where a number
leaves ±LARGEST, so that every text comes to values or to none, in bounded time, whatever a model has written.

The difficulty dial is the number of `operators`. Every function belongs to one split, by its values: a model that
learned from `train` has seen no program for a function of `eval`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import TypeAlias

from headrace.reason.tasks.arith import Split, split_of
from headrace.spec.errors import InvalidRequest

SHOWN, HIDDEN = (0, 1, 2, 3), (4, 5, 6, 7, 8, 9)
INPUTS = (*SHOWN, *HIDDEN)
LONGEST, LARGEST = 40, 9999
LARGEST_ASKED = 99
"""No value of a question's function is beyond it."""
MOST_OPERATORS = 6
SUMS, PRODUCTS = "+-", "*%"

Tree: TypeAlias = "str | tuple[str, Tree, Tree]"
"""A leaf, `x` or a digit, or an operator with its operands."""
Values: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Puzzle:
    """`question` ends with a line break; `program` is one of many that are right; `values` for all INPUTS."""

    question: str
    program: str
    values: Values

    @property
    def split(self) -> Split:
        return split_of(str(self.values))

    def passes(self, text: str, inputs: Sequence[int] = INPUTS) -> bool:
        """Whether a program passes the tests at these inputs."""
        found = values_of(text)
        return found is not None and all(found[x] == self.values[x] for x in inputs)


# -- the interpreter -------------------------------------------------------------------------------


@lru_cache(65536)
def values_of(text: str) -> Values | None:
    """What a program gives for all INPUTS; None for a text that is none or that leaves the range at any of them."""
    tree = parse(text)
    if tree is None:
        return None
    found = [evaluate(tree, x) for x in INPUTS]
    return tuple(value for value in found if value is not None) if None not in found else None


def parse(text: str) -> Tree | None:
    """None for what is no program."""
    reader = _Reader(text) if len(text) <= LONGEST else None
    tree = reader.sum() if reader is not None else None
    return tree if reader is not None and reader.at == len(text) else None


class _Reader:
    """Recursive descent. `at`: how far it has read; a method that finds nothing of its kind gives None."""

    def __init__(self, text: str) -> None:
        self._text, self.at = text, 0

    def sum(self) -> Tree | None:
        return self._chain(SUMS, self._product)

    def _product(self) -> Tree | None:
        return self._chain(PRODUCTS, self._atom)

    def _chain(self, signs: str, part: Callable[[], Tree | None]) -> Tree | None:
        tree = part()
        while tree is not None and (sign := self._next()) and sign in signs:
            self.at += 1
            right = part()
            tree = (sign, tree, right) if right is not None else None
        return tree

    def _atom(self) -> Tree | None:
        sign = self._next()
        self.at += 1
        if sign == "x" or (sign and sign in "0123456789"):
            return sign
        inner = self.sum() if sign == "(" else None
        closed = self._next() == ")"
        self.at += 1
        return inner if closed else None

    def _next(self) -> str:
        return self._text[self.at : self.at + 1]


def evaluate(tree: Tree, x: int) -> int | None:
    """None where a number on the way is beyond ±LARGEST."""
    if isinstance(tree, str):
        return x if tree == "x" else int(tree)
    left, right = evaluate(tree[1], x), evaluate(tree[2], x)
    if left is None or right is None:
        return None
    value = _apply(tree[0], left, right)
    return value if abs(value) <= LARGEST else None


def _apply(sign: str, left: int, right: int) -> int:
    if sign == "+":
        return left + right
    if sign == "-":
        return left - right
    if sign == "*":
        return left * right
    return left % right if right else 0


def written(tree: Tree) -> str:
    """A program of the same values, without brackets around what is added."""
    if isinstance(tree, str):
        return tree
    sign, left, right = tree
    if sign in SUMS:
        return written(left) + sign + _bracketed(right, sign == "-" and _loose(right))
    return _bracketed(left, _loose(left)) + sign + _bracketed(right, not isinstance(right, str))


def _loose(tree: Tree) -> bool:
    return not isinstance(tree, str) and tree[0] in SUMS


def _bracketed(tree: Tree, needed: bool) -> str:
    return f"({written(tree)})" if needed else written(tree)


# -- questions -------------------------------------------------------------------------------------


def puzzles(operators: int, count: int, seed: int = 0, split: Split = "eval") -> list[Puzzle]:
    """`count` distinct functions of one split, drawn with so many operators, the same for the same arguments.

    Raises InvalidRequest for settings out of range, or where there are not so many functions.
    """
    rng = Random(f"programs {operators} {seed}")
    found: dict[Values, Puzzle] = {}
    for _ in range(500 * count + 1000):
        if len(found) == count:
            return list(found.values())
        puzzle = draw(rng, operators)
        if puzzle.split == split:
            found.setdefault(puzzle.values, puzzle)
    raise InvalidRequest(
        f"There are not {count} functions of {operators} operators in split {split!r}; ask for fewer.", "count"
    )


def draw(rng: Random, operators: int) -> Puzzle:
    """One random function of any split that is not constant. Raises InvalidRequest for `operators` out of range."""
    if not 1 <= operators <= MOST_OPERATORS:
        raise InvalidRequest(f"operators is {operators}; give 1 to {MOST_OPERATORS}.", "operators")
    while True:
        program = written(_tree(rng, operators))
        values = values_of(program)
        if values is not None and max(map(abs, values)) <= LARGEST_ASKED and len({values[x] for x in SHOWN}) > 1:
            return Puzzle(question(values), program, values)


def question(values: Values) -> str:
    return ", ".join(f"f({x})={values[x]}" for x in SHOWN) + "\n"


def _tree(rng: Random, operators: int) -> Tree:
    if operators == 0:
        return "x" if rng.random() < 0.5 else str(rng.randint(1, 9))
    left = rng.randrange(operators)
    return rng.choice(SUMS + PRODUCTS), _tree(rng, left), _tree(rng, operators - 1 - left)
