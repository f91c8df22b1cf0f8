"""Non-negative numbers known by their logarithm, so that weights of long sequences do not underflow."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import total_ordering
from typing import Any


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class LogNumber:
    """The number e**log; log = -inf is zero. It adds, multiplies and compares like a float.

    Divided by a plain number it stays a LogNumber; the ratio of two LogNumbers is a float.
    """

    log: float

    def __add__(self, other: Any) -> LogNumber:
        low, high = sorted((self.log, log_of(other)))
        return LogNumber(high if low == -math.inf else high + math.log1p(math.exp(low - high)))

    __radd__ = __add__

    def __mul__(self, other: Any) -> LogNumber:
        return LogNumber(self.log + log_of(other))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        if not other:
            raise ZeroDivisionError("a LogNumber is divided by zero")
        quotient = self.log - log_of(other)
        return math.exp(quotient) if isinstance(other, LogNumber) else LogNumber(quotient)

    def __bool__(self) -> bool:
        return self.log > -math.inf

    def __eq__(self, other: object) -> bool:
        return self.log == log_of(other)

    def __lt__(self, other: Any) -> bool:
        return self.log < log_of(other)

    def __hash__(self) -> int:
        return hash(self.log)

    def __float__(self) -> float:
        return math.exp(self.log)


def log_of(number: Any) -> float:
    """The natural logarithm of any non-negative number; -inf for zero."""
    if isinstance(number, LogNumber):
        return number.log
    return math.log(number) if number else -math.inf


def from_logs(logs: Iterable[float]) -> tuple[LogNumber, ...]:
    return tuple(LogNumber(float(log)) for log in logs)
