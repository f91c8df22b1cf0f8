"""The command line, run in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from headrace.cli.main import app

Headrace = Callable[..., Result]


@pytest.fixture
def headrace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Headrace:
    """headrace("run", "hello") -> the result, with stdout, stderr and the exit code."""
    monkeypatch.chdir(tmp_path)

    def invoke(*words: str, stdin: str | bytes | None = None) -> Result:
        return CliRunner().invoke(app, list(words), input=stdin)

    return invoke
