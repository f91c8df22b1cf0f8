"""Strategies as named, parameterised functions over a run, and the grammar that combines them.

beam(width=16) | fuse          the second continues with the candidates of the first
best_of_n(n=4) & single        both, half the budget each; the best of all candidates
step_beam * 99                 again and again until the budget ends; the best of all rounds' candidates
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from typing import Any, TypeAlias, get_args, get_type_hints

from headrace.reason.choose import Best
from headrace.reason.run import Run
from headrace.spec.errors import InvalidRequest

Body: TypeAlias = Callable[..., Awaitable[None]]

ROOMS = (
    "sampling",
    "beams",
    "trees",
    "particles",
    "revision",
    "stopping",
    "auto",
    "combining",
    "medprompt",
    "thinksum",
    "perception",
    "questioning",
)
"""Modules of `reason.strategies`."""
LONGEST = 1000
"""Characters of a strategy."""
MOST = 10_000
"""Of any parameter: one number of a request must not fill the memory."""
ROUNDS = 100
"""Of a repeated plan."""
SHARES = ("keep", "confidence", "consensus")
"""Parameters that are at most 1."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """`rule`: which candidate is the best at any time. `needs`: scorer, choices, examples … that a task must have."""

    name: str
    body: Body = field(compare=False)
    rule: Best
    needs: frozenset[str]
    summary: str
    paper: str
    parameters: dict[str, Any] = field(default_factory=dict, compare=False)


_REGISTRY: dict[str, Strategy] = {}


def strategy(name: str, *, rule: Best, needs: tuple[str, ...] = (), paper: str = "") -> Callable[[Body], Body]:
    """Registers an async function `body(run, **parameters)`, whose parameters all have defaults."""

    def register(body: Body) -> Body:
        parameters = {
            p.name: p.default for p in list(inspect.signature(body).parameters.values())[1:] if p.default is not p.empty
        }
        summary = (inspect.getdoc(body) or "").split("\n\n")[0].replace("\n", " ")
        _REGISTRY[name] = Strategy(name, body, rule, frozenset(needs), summary, paper, parameters)
        return body

    return register


def strategies() -> dict[str, Strategy]:
    """All of them by name."""
    for room in ROOMS:
        import_module(f"headrace.reason.strategies.{room}")
    return dict(sorted(_REGISTRY.items()))


@dataclass(frozen=True, slots=True)
class Step:
    """One strategy with its parameters."""

    strategy: Strategy
    parameters: dict[str, Any]

    def __str__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.parameters.items())
        return f"{self.strategy.name}({given})" if given else self.strategy.name

    @property
    def rule(self) -> Best:
        return self.strategy.rule

    @property
    def needs(self) -> frozenset[str]:
        return self.strategy.needs

    async def run(self, run: Run) -> None:
        run.rule = self.rule
        await self.strategy.body(run, **self.parameters)


@dataclass(frozen=True, slots=True)
class Joined:
    """`left | right`: the right one goes on with the left one's candidates. `left & right`: half the budget each."""

    operator: str
    left: Plan
    right: Plan

    def __str__(self) -> str:
        nests = isinstance(self.left, Joined) and self.left.operator != self.operator
        left = f"({self.left})" if nests else f"{self.left}"
        return (
            f"{left} {self.operator} ({self.right})"
            if isinstance(self.right, Joined)
            else f"{left} {self.operator} {self.right}"
        )

    @property
    def rule(self) -> Best:
        return self.right.rule

    @property
    def needs(self) -> frozenset[str]:
        return self.left.needs | self.right.needs

    async def run(self, run: Run) -> None:
        if self.operator == "|":
            await self.left.run(run)
            await self.right.run(run)
            return
        first, second = run.purse.account.remaining().split([1, 1])
        for plan, budget in ((self.left, first), (self.right, second)):
            with run.purse.within(budget):
                await plan.run(run)
        run.rule = _common(self.left.rule, self.right.rule)


@dataclass(frozen=True, slots=True)
class Repeated:
    """`plan * times`: as many rounds as the budget pays for, each from the question on; the last one may be cut."""

    plan: Plan
    times: int

    def __str__(self) -> str:
        return f"({self.plan}) * {self.times}" if isinstance(self.plan, Joined) else f"{self.plan} * {self.times}"

    @property
    def rule(self) -> Best:
        return self.plan.rule

    @property
    def needs(self) -> frozenset[str]:
        return self.plan.needs

    async def run(self, run: Run) -> None:
        for _ in range(self.times):
            if run.exhausted:
                return
            await self.plan.run(run)


Plan: TypeAlias = Step | Joined | Repeated


def parse(text: str) -> Plan:
    """Reads a strategy expression. Raises InvalidRequest naming what is wrong and the nearest name."""
    if len(text) > LONGEST:
        raise InvalidRequest(f"A strategy of {len(text)} characters is too long; write at most {LONGEST}.", "strategy")
    try:
        return _plan(ast.parse(text.strip(), mode="eval").body, text)
    except InvalidRequest:
        raise
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InvalidRequest(
            f"The strategy {text!r} cannot be read; write it like 'self_consistency(n=8)' or 'a | b'.", "strategy"
        ) from None


def _plan(tree: ast.expr, text: str) -> Plan:
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Mult):
        return Repeated(_plan(tree.left, text), _times(tree, text))
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.BitOr | ast.BitAnd):
        operator = "|" if isinstance(tree.op, ast.BitOr) else "&"
        return Joined(operator, _plan(tree.left, text), _plan(tree.right, text))
    name, given = tree, {}
    if isinstance(tree, ast.Call) and not tree.args and all(word.arg for word in tree.keywords):
        name = tree.func
        given = {str(word.arg): _value(word.value, text) for word in tree.keywords}
    if not isinstance(name, ast.Name):
        raise InvalidRequest(
            f"{ast.unparse(tree)!r} in the strategy {text!r} is neither a name nor name(key=value); "
            f"write it like 'self_consistency(n=8)'.",
            "strategy",
        )
    return Step(_named(name.id), _checked(_named(name.id), given))


def _times(tree: ast.BinOp, text: str) -> int:
    times = _value(tree.right, text)
    if type(times) is not int or not 1 <= times <= ROUNDS:
        raise InvalidRequest(f"{times!r} rounds in the strategy {text!r}; give 1 to {ROUNDS}.", "strategy")
    if any(isinstance(part, ast.Mult) for part in ast.walk(tree.left)):
        raise InvalidRequest(f"The strategy {text!r} has rounds within rounds; multiply once.", "strategy")
    return times


def _value(tree: ast.expr, text: str) -> Any:
    try:
        return ast.literal_eval(tree)
    except (ValueError, TypeError):
        raise InvalidRequest(
            f"{ast.unparse(tree)!r} in the strategy {text!r} is no number, word in quotes, True or False; give one.",
            "strategy",
        ) from None


def _named(name: str) -> Strategy:
    known = strategies()
    if name in known:
        return known[name]
    near = get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}? `headrace strategies` lists them" if near else "`headrace strategies` lists them"
    raise InvalidRequest(f"There is no strategy {name!r}; {hint}.", "strategy")


def _checked(found: Strategy, given: dict[str, Any]) -> dict[str, Any]:
    """Parameters that exist and have the type of their default."""
    hints = get_type_hints(found.body)
    for name, value in given.items():
        if name not in found.parameters:
            known = ", ".join(found.parameters) or "none"
            raise InvalidRequest(f"{found.name} has no parameter {name!r}; it has {known}.", "strategy")
        wanted = hints.get(name, type(found.parameters[name]))
        if choices := get_args(wanted):
            if value not in choices:
                raise InvalidRequest(f"{name}={value!r} of {found.name}: choose {' or '.join(choices)}.", "strategy")
            continue
        fits = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
        if not fits or (isinstance(value, bool) and wanted is not bool):
            raise InvalidRequest(
                f"{name}={value!r} of {found.name} has the wrong type; give {_spoken(wanted)}.", "strategy"
            )
        _in_range(found, name, value, wanted)
    return given


def _in_range(found: Strategy, name: str, value: Any, wanted: Any) -> None:
    """Whole numbers count something, from 1 on; shares are at most 1, a temperature is above 0."""
    low, high = (1, MOST) if wanted is int else (0.001 if name == "temperature" else 0, 1 if name in SHARES else MOST)
    if wanted in (int, float) and not low <= value <= high:
        raise InvalidRequest(f"{name}={value} of {found.name} is out of range; give {low} to {high}.", "strategy")


def _spoken(wanted: Any) -> str:
    return {int: "a whole number", float: "a number", str: "a word in quotes", bool: "True or False"}.get(
        wanted, str(wanted)
    )


def _common(left: Best, right: Best) -> Best:
    """A rule under which both sides' candidates can be compared."""
    return left if left == right else "weighted" if {left, right} == {"weighted", "score"} else "vote"
