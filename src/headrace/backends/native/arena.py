"""Memory that is handed out at once and backed by the system a little later."""

from __future__ import annotations

import contextlib
import mmap
import os
import threading

import numpy as np

from headrace.backends.native import _kernels

_CHUNK = 2**22
_GRACE = 0.5
_NICENESS = 10
"""A tenth of a core beside a step that takes all of them: backing half a GiB ends within seconds."""


class Arena:
    """`nbytes` zeros, cut into arrays by `take`.

    The system backs a page when it is first touched. A thread of low priority touches all of them as soon as `used`
    is called, or half a second after `back`: so the first answer does not wait for memory that it does not need,
    and no later one can find that there is none.
    """

    def __init__(self, nbytes: int) -> None:
        own = mmap.mmap(-1, max(nbytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._bytes = np.frombuffer(own, np.uint8)
        self._taken, self._first, self._closed = 0, threading.Event(), False
        # No daemon: Python ends those wherever they are, and inside a kernel that ends the process with an abort.
        self._thread = threading.Thread(target=self._back, name="headrace-memory")

    def take(self, nbytes: int) -> np.ndarray:
        """The next bytes, uint8 [nbytes]."""
        start, self._taken = self._taken, self._taken + nbytes
        if self._taken > len(self._bytes):
            raise ValueError(f"the arena has {len(self._bytes)} bytes, {self._taken} were taken")
        return self._bytes[start : start + nbytes]

    def back(self) -> None:
        self._thread.start()

    def used(self) -> None:
        self._first.set()

    def wait(self) -> None:
        """Returns when every page is backed, or after `close`."""
        self._first.set()
        self._thread.join()

    def close(self) -> None:
        """Ends the thread; the arrays stay."""
        self._closed = True
        self._first.set()
        if self._thread.is_alive():
            self._thread.join()

    def _back(self) -> None:
        self._first.wait(_GRACE)
        with contextlib.suppress(OSError, AttributeError):  # where a thread has no priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        for at in range(0, len(self._bytes), _CHUNK):
            if self._closed:
                return
            _kernels.back(self._bytes[at : at + _CHUNK])
