"""Nothing that a worker process does can hold its callers, and no process outlives them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.reason.answers.killable import Killed, Workers

MODULE = "reason.hostile_worker"


@pytest.fixture
def workers() -> Iterator[Workers]:
    pool = Workers(MODULE, most=2, seconds=0.2)
    yield pool
    pool.close()


@pytest.mark.parametrize("operation", ["spin", "grind", "die"])
def test_a_call_without_end_is_killed_and_the_next_one_answered(workers: Workers, operation: str) -> None:
    assert workers.call("echo", "before") == "before"
    (first,) = workers.pids()
    with pytest.raises(Killed):
        workers.call(operation)
    assert workers.killed == 1 and not alive(first)
    assert workers.call("echo", "after") == "after"
    assert workers.pids() != [first]


def test_a_call_that_sleeps_is_given_up() -> None:
    pool = Workers(MODULE, patience=2.0)
    with pytest.raises(Killed):
        pool.call("sleep")
    pool.close()


def test_an_error_is_no_answer_and_costs_no_process(workers: Workers) -> None:
    assert workers.call("raise") is None
    assert workers.call("swallow") is None
    assert workers.call("chatter", "word") == "word"
    assert workers.killed == 0 and len(workers.pids()) == 1


def test_one_that_hangs_holds_no_other_thread(workers: Workers) -> None:
    """The one that hangs sleeps: it ends only when the pool is closed, after all others have been answered."""
    answers: list[str] = []
    gone = threading.Event()

    def hang() -> None:
        with pytest.raises(Killed):
            workers.call("sleep")
        gone.set()

    threads = [threading.Thread(target=hang)]
    threads += [threading.Thread(target=lambda k=k: answers.append(workers.call("echo", str(k)))) for k in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads[1:]:
        thread.join()
    assert sorted(answers, key=int) == [str(k) for k in range(12)] and not gone.is_set()
    workers.close()
    threads[0].join()
    assert gone.is_set()


def test_from_an_event_loop(workers: Workers) -> None:
    async def all_of_them() -> list[object]:
        calls = [("echo", "1"), ("spin",), ("echo", "2"), ("die",), ("echo", "3")]
        return list(await asyncio.gather(*(asyncio.to_thread(workers.call, *c) for c in calls), return_exceptions=True))

    found = asyncio.run(all_of_them())
    assert [f for f in found if isinstance(f, str)] == ["1", "2", "3"]
    assert sum(isinstance(f, Killed) for f in found) == 2 == workers.killed


def test_closing_ends_every_process_and_a_later_call_starts_anew(workers: Workers) -> None:
    workers.call("echo", "x")
    pids = workers.pids()
    workers.close()
    assert pids and not any(map(alive, pids)) and workers.pids() == []
    assert workers.call("echo", "y") == "y"


CALLER = f"""
import os, sys, threading
from headrace.reason.answers.killable import Workers
pool = Workers("{MODULE}", seconds=0.5)
pool.call("echo", "x")
if "busy" in sys.argv[1]:
    threading.Thread(target=lambda: pool.call("spin"), daemon=True).start()
print(*pool.pids(), flush=True)
if "killed" in sys.argv[1]:
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("how", ["idle", "busy", "killed while idle", "killed while busy"])
def test_no_process_is_left_behind(how: str) -> None:
    path = os.pathsep.join(filter(None, sys.path))
    words = [sys.executable, "-c", CALLER, how]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 1, done.stderr
    while alive(pids[0]):
        assert "killed" in how, "a caller that ends by itself has ended its workers before"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether the process runs; one that only waits to be noticed by its parent does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
