"""A worker process that spins, sleeps, dies and swallows memory on request."""

from __future__ import annotations

import os
import time

from headrace.reason.answers.killable import serve


def spin() -> None:
    while True:
        pass


def grind() -> int:
    """One operation in C, in which no handler of Python's could run."""
    return (9**9**6) ** 9**6 % 7


def chatter(word: str) -> str:
    print("a library that prints")
    return word


if __name__ == "__main__":
    serve(
        {
            "echo": str,
            "spin": spin,
            "grind": grind,
            "sleep": lambda: time.sleep(1000),
            "die": lambda: os._exit(3),
            "raise": lambda: 1 / 0,
            "swallow": lambda: len(bytearray(1 << 40)),
            "chatter": chatter,
        }
    )
