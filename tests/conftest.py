"""Fixtures that every folder's tests may use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

DEFAULT_MODEL = "smollm2-135m"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--figures", type=Path, help="write what tests hand to the `figures` fixture to this JSON file")


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """A dict for the figures a proof has measured; `make prove` stores them beside the verdict."""
    found: dict[str, Any] = {}
    yield found
    path = request.config.getoption("--figures")
    if path is not None and found:
        everything = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        everything[request.node.name] = found
        path.write_text(json.dumps(everything, indent=2), encoding="utf-8")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The default model's file, pulled once into the user's cache; tests skip where it cannot be had."""
    from headrace.model.catalogue import resolve
    from headrace.spec.errors import HeadraceError

    try:
        return resolve(DEFAULT_MODEL)
    except HeadraceError as error:
        pytest.skip(f"{DEFAULT_MODEL} cannot be pulled here: {error}")


def pytest_configure(config: pytest.Config) -> None:
    """The quick runs try the same cases every time; `make prove` draws new ones."""
    if "not prove" in config.option.markexpr:
        settings.register_profile("quick", derandomize=True, deadline=None)
        settings.load_profile("quick")
