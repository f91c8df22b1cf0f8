"""Whether a process holds a secret: its writable memory is read and searched, and that of the processes it started."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

_RANGE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (.)(.)")
_PIECE = 2**24


def holds(process: int, secrets: Sequence[bytes]) -> bool | None:
    """Whether one of `secrets` lies in the memory of a process or of one below it; None where nobody may look.

    File maps that cannot be written are left out, as they hold what the files do. Linux alone lets a process look
    into those that it started.
    """
    try:
        return any(_in_memory(each, secrets) for each in family(process))
    except OSError:
        return None


def family(process: int) -> list[int]:
    """The process and all below it."""
    found = [process]
    for each in found:
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            found += map(int, children.read_text().split())
    return found


def _in_memory(process: int, secrets: Sequence[bytes]) -> bool:
    longest = max(map(len, secrets))
    with open(f"/proc/{process}/mem", "rb", buffering=0) as memory:
        for start, stop in _writable(process):
            for at in range(start, stop, _PIECE):
                try:
                    memory.seek(at)
                    piece = memory.read(min(_PIECE + longest, stop - at))
                except (OSError, OverflowError, ValueError):
                    break  # a range that the kernel keeps, or that is gone by now
                if any(secret in piece for secret in secrets):
                    return True
    return False


def _writable(process: int) -> Iterator[tuple[int, int]]:
    for line in Path(f"/proc/{process}/maps").read_text().splitlines():
        found = _RANGE.match(line)
        if found is not None and found[3] + found[4] == "rw":
            yield int(found[1], 16), int(found[2], 16)
