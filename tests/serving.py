"""A server of its own process, for tests."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def running_server(words: Sequence[str]) -> Iterator[str]:
    """Starts the command, gives the URL that it prints, and ends it by SIGTERM with exit status 0."""
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    try:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if " answers at " in line:
                break
        assert " answers at " in said, said
        yield said.split(" answers at ")[1].strip()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
