"""Where and on what a claim was run."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path


def describe_machine() -> str:
    """The processor, its usable cores and its memory, in words."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{_processor()}, {cores} cores, {_memory_gib()} GiB, {platform.system()}"


def commit_of(root: Path) -> str:
    """The commit checked out at `root`, with '+' when tracked files differ from it; '' outside a repository."""
    head = _git(root, "rev-parse", "--short=12", "HEAD")
    changed = head and _git(root, "status", "--porcelain", "--untracked-files=no", "--", "src")
    return head + ("+" if changed else "")


def today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> int:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    except (ValueError, OSError, AttributeError):
        return 0
