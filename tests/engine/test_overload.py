"""Four times too many requests: each is answered or refused, no page leaks, memory stays what the ledger said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the reference backend needs torch")

if not sys.platform.startswith("linux"):
    pytest.skip("anonymous memory is read from /proc", allow_module_level=True)


def overload(model: Path, requests: int) -> dict[str, Any]:
    script = Path(__file__).with_name("overload.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script), str(model), str(requests)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    assert sum(found[key] for key in ("stop", "length", "cancelled", "refused")) == requests
    assert found["pages_used_after"] == 0
    assert 0.85 <= found["peak_over_ledger"] <= 1.05, found
    return found


def test_overload_is_answered_or_refused_within_the_ledger(smollm2: Path) -> None:
    found = overload(smollm2, 24)
    assert found["length"] > 0 and found["cancelled"] > 0


@pytest.mark.prove
def test_overload_is_answered_or_refused_within_the_ledger_full(smollm2: Path, figures: dict[str, Any]) -> None:
    found = overload(smollm2, 2000)
    assert found["refused"] > 0 and found["preempted"] > 0
    assert found["refused"] < 1000, "the majority is answered"
    figures.update(found)
