"""The machine a figure was measured on, and the versions that matter to speed."""

from __future__ import annotations

import platform
from typing import Any

from headrace.evidence.machine import describe_machine


def measured_on() -> dict[str, Any]:
    """Processor, usable cores and memory in words; Python and package versions (None where not installed)."""
    versions = {name: installed(name) for name in ("headrace", "numpy", "torch")}
    return {"hardware": describe_machine(), "python": platform.python_version(), "versions": versions}


def installed(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None
