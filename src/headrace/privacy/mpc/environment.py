"""The environment of SPU, apart from Headrace's own: it needs an older numpy, and JAX of one version.

It is made once, in the cache folder, when something first needs it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeAlias

from headrace.model.catalogue import cache_folder
from headrace.privacy.mpc.errors import WorkerUnavailable

Report: TypeAlias = Callable[[str], None]

PACKAGES = (
    "spu==0.9.5", "jax==0.4.34", "jaxlib==0.4.34", "numpy==1.26.4", "scipy==1.17.1", "ml_dtypes==0.5.4",
    "cachetools==8.0.1", "cloudpickle==3.1.2", "dill==0.4.1", "multiprocess==0.70.19", "opt-einsum==3.4.0",
    "termcolor==3.3.0",
)  # fmt: skip
"""What runs together, whole: SPU binds JAX and numpy to these versions."""

TELL_SECONDS = 20


def environment_folder() -> Path:
    return cache_folder() / "privacy" / "mpc"


def worker_python(folder: Path | None = None) -> Path | None:
    """The environment's Python where it is whole and of these versions, else None."""
    folder = folder or environment_folder()
    stamp = folder / "installed.json"
    whole = stamp.is_file() and stamp.read_text(encoding="utf-8") == json.dumps(PACKAGES)
    return _python(folder) if whole else None


def make_worker(report: Report, folder: Path | None = None, packages: tuple[str, ...] = PACKAGES) -> Path:
    """The environment's Python, after minutes of downloads where it was not there yet; `report` is told meanwhile.

    Raises WorkerUnavailable, in one sentence, where pip finds no such packages for this Python and system.
    """
    folder = folder or environment_folder()
    if packages == PACKAGES and (found := worker_python(folder)) is not None:
        return found
    folder.mkdir(parents=True, exist_ok=True)
    log, stamp = folder / "install.log", folder / "installed.json"
    stamp.unlink(missing_ok=True)  # what is ended half-way is not taken for whole
    report(f"Making the environment of SPU in {folder}: {', '.join(packages[:3])} …, 1 GB on disk.")
    with log.open("w", encoding="utf-8") as lines:
        _call(report, lines, sys.executable, "-m", "venv", "--clear", "--without-pip", folder / "venv")
        pip = (sys.executable, "-m", "pip", "--python", _python(folder), "--disable-pip-version-check")
        _call(report, lines, *pip, "install", "--only-binary", ":all:", *packages)
    stamp.write_text(json.dumps(packages), encoding="utf-8")
    return _python(folder)


def _call(report: Report, log: IO[str], *command: str | Path) -> None:
    began = time.monotonic()
    with subprocess.Popen(list(map(str, command)), stdout=log, stderr=log) as process:
        while True:
            try:
                code = process.wait(TELL_SECONDS)
                break
            except subprocess.TimeoutExpired:
                report(f"  {time.monotonic() - began:.0f} s …")
    if code:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise WorkerUnavailable(
            f"The environment of SPU cannot be made (Python {version} on {sys.platform}): {_last_error(log.name)}; "
            f"look into {log.name} and try again with Python 3.11 on Linux."
        )


def _last_error(log: str) -> str:
    lines = Path(log).read_text(encoding="utf-8", errors="replace").splitlines()
    told = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or lines[-1:]
    return told[-1].rstrip(".") if told else "pip said nothing"


def _python(folder: Path) -> Path:
    return folder / "venv" / "bin" / "python"
