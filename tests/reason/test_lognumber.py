"""LogNumbers agree with plain floats where floats reach, and go on where they do not."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.reason.lognumber import LogNumber, from_logs, log_of

positive = st.floats(1e-9, 1e9)


def number(value: float) -> LogNumber:
    return LogNumber(log_of(value))


@given(positive, positive)
def test_arithmetic_is_that_of_floats(a: float, b: float) -> None:
    x, y = number(a), number(b)
    assert float(x + y) == pytest.approx(a + b)
    assert float(x * y) == pytest.approx(a * b) == float(b * x)
    assert x / y == pytest.approx(a / b)
    assert float(x / b) == pytest.approx(a / b)
    assert float(sum([x, y, x])) == pytest.approx(2 * a + b)
    assert (x < y) == (math.log(a) < math.log(b)) and (x >= y) != (x < y)


def test_zero() -> None:
    zero = LogNumber(-math.inf)
    assert not zero and not zero > 0 and zero == 0
    assert zero + zero == zero and zero + LogNumber(1.0) == LogNumber(1.0)
    assert zero * 5 == zero and zero / 5 == zero and zero / LogNumber(0.0) == 0.0
    for nothing in (zero, 0):
        with pytest.raises(ZeroDivisionError):
            LogNumber(0.0) / nothing


def test_nothing_underflows() -> None:
    tiny, tinier = from_logs([-5000.0, -5000.0 + math.log(3)])
    assert tiny > 0 and tinier / (tiny + tinier) == pytest.approx(0.75)
    assert hash(tiny) == hash(LogNumber(-5000.0))
