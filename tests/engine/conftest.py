"""A toy engine that must be whole and well after each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.verbs import made
from headrace.engine.engine import Engine


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine, _ = made()
    yield engine
    assert engine.healthy() is None
    engine.check()
    engine.close()
