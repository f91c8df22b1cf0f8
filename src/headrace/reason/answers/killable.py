"""Processes for work that may never end: one that goes beyond its processor time is killed, and nobody waits for it.

The system kills (SIGPROF), so that no loop in a library's C code can hold it off and a loaded machine does not
shorten what a call is allowed. A process ends with its caller: its input closes.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

Operations = Mapping[str, Callable[..., Any]]
MEMORY = 4 << 30
"""Bytes of address space of a process; beyond, the library gets a MemoryError."""


class Killed(Exception):
    """A call was stopped: it took too long, or its process died."""


class Workers:
    """Calls into `module`, which runs `serve`, from any thread; `most` at a time, each for `seconds` of processor time.

    `patience`: seconds of wall time after which a process that does not even compute is given up.
    """

    def __init__(self, module: str, most: int = 2, seconds: float = 2.0, patience: float = 60.0) -> None:
        self.killed = 0
        self._command = [sys.executable, "-m", module, str(seconds)]
        self._patience = patience
        self._places = threading.BoundedSemaphore(most)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._watched = False

    def call(self, operation: str, *words: str) -> Any:
        """What the operation returned; None where it raised. Raises Killed."""
        with self._places:
            worker = self._take()
            try:
                reply = worker.ask([operation, *words], self._patience)
            except BaseException as error:
                self._forget(worker)
                if isinstance(error, Killed):
                    with self._lock:
                        self.killed += 1
                raise
            with self._lock:
                if worker in self._all:  # else the pool was closed meanwhile
                    self._idle.append(worker)
            return reply

    def pids(self) -> list[int]:
        with self._lock:
            return [worker.process.pid for worker in self._all]

    def close(self) -> None:
        """Ends every process, also one at work. A later call starts new ones."""
        with self._lock:
            workers, self._all = self._all, set()
            self._idle.clear()
        for worker in workers:
            worker.kill()

    def _take(self) -> _Worker:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if not self._watched:
                self._watched = True
                atexit.register(self.close)
        worker = _Worker(self._command)
        with self._lock:
            self._all.add(worker)
        return worker

    def _forget(self, worker: _Worker) -> None:
        with self._lock:
            self._all.discard(worker)
        worker.kill()


class _Worker:
    def __init__(self, command: list[str]) -> None:
        paths = os.pathsep.join(path for path in sys.path if path)
        self.process = subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is the caller's to handle
        )

    def ask(self, request: list[str], patience: float) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
            ready, _, _ = select.select([self.process.stdout], [], [], patience)
            line = self.process.stdout.readline() if ready else b""
        except (OSError, ValueError):  # its pipe is closed: it died, or the pool was closed
            line = b""
        if not line.endswith(b"\n"):
            raise Killed(request[0])
        return json.loads(line)

    def kill(self) -> None:
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        self.process.wait()


def serve(operations: Operations) -> None:
    """The loop of a worker process: a JSON list [operation, words …] a line in, one reply a line out."""
    seconds = float(sys.argv[1])
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no reply
    _bound_memory()
    for line in sys.stdin.buffer:
        operation, *words = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            reply = operations[operation](*words)
        except Exception:
            reply = None
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.flush()


def _bound_memory() -> None:
    import resource

    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
