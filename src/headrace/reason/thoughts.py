"""ThinkSum (2210.01293): what is thought in parallel, and how its probabilities are summed outside the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

Sum: TypeAlias = Literal["mixture", "product", "max"]


@dataclass(frozen=True, slots=True)
class Thought:
    """A context and what may follow it; each continuation is scored behind the context's shared pages."""

    context: str
    continuations: tuple[str, ...]


class Think(Protocol):
    """How a task is thought about. `kind`: what the model lists examples of first; None for nothing."""

    @property
    def kind(self) -> str | None: ...

    def thoughts(self, examples: Sequence[str]) -> list[Thought]:
        """At least one; `examples` may be empty."""
        ...

    def weigh(self, found: Sequence[Sequence[float]], how: Sum) -> list[float]:
        """Log-weights of the choices from the log-probabilities of every thought's continuations."""
        ...


@dataclass(frozen=True, slots=True)
class Contexts:
    """The same choices behind several contexts: paraphrases, facts, examples."""

    contexts: tuple[str, ...]
    choices: tuple[str, ...]
    kind: str | None = None

    def thoughts(self, examples: Sequence[str]) -> list[Thought]:
        return [Thought(context, self.choices) for context in self.contexts]

    def weigh(self, found: Sequence[Sequence[float]], how: Sum) -> list[float]:
        return combined(found, how)


def combined(found: Sequence[Sequence[float]], how: Sum) -> list[float]:
    """One log-weight a choice from rows of log-probabilities, one row a context.

    mixture: log of the mean probability; product: sum of the logs; max: the best context's.
    Every one of them is the same whatever the order of the contexts.
    """
    columns = [sorted(column) for column in zip(*found, strict=True)]
    if how == "product":
        return [math.fsum(column) for column in columns]
    if how == "max":
        return [column[-1] for column in columns]
    return [log_sum_exp(column) - math.log(len(column)) for column in columns]


def log_sum_exp(values: Sequence[float]) -> float:
    top = max(values)
    return top if math.isinf(top) else top + math.log(math.fsum(math.exp(value - top) for value in values))


def normalised(logs: Sequence[float]) -> list[float]:
    """Log-weights as probabilities."""
    total = log_sum_exp(logs)
    return [math.exp(value - total) for value in logs]
