"""Progress of a training run as lines in a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.adapt.train import Progress

EVERY_SECONDS = 10.0


class Lines:
    """Prints a line to stderr at most every ten seconds, and at the end: step, mean loss since the last, time left."""

    def __init__(self, title: str) -> None:
        self._title, self._losses = title, list[float]()
        self._printed, self._first = 0.0, 0

    def __call__(self, progress: Progress) -> None:
        self._first = self._first or progress.step
        self._losses.append(progress.loss)
        if progress.seconds - self._printed < EVERY_SECONDS and progress.step < progress.steps:
            return
        left = progress.seconds / (progress.step - self._first + 1) * (progress.steps - progress.step)
        mean = sum(self._losses) / len(self._losses)
        where = f"step {progress.step} of {progress.steps}, loss {mean:.3f}"
        print(
            f"{self._title}: {where}, {_span(progress.seconds)} gone, {_span(left)} to go", file=sys.stderr, flush=True
        )
        self._printed = progress.seconds
        self._losses.clear()


def _span(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
