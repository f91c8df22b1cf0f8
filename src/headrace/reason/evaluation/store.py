"""The samples of an evaluation: one JSON line each, appended when it is done, so that a kill loses none."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TypeAlias

from headrace.spec.budget import Budget
from headrace.spec.errors import InvalidRequest

FORMAT = 1
Kind: TypeAlias = Literal["right", "wrong", "unparsed", "timeout", "budget"]
KINDS: tuple[Kind, ...] = ("right", "wrong", "unparsed", "timeout", "budget")
"""What became of an attempt. Budget: a bound cut it before it had said its answer; timeout: the seconds' bound, or
a comparison of answers that was given up."""


class Key(NamedTuple):
    """`draw` counts independent repetitions of the same strategy on the same question."""

    item: str
    strategy: str
    budget: str
    draw: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one strategy on one question.

    `tokens` and `prefill` are all that was drawn and given; `scorer_tokens` and `scorer_prefill` are the scorer's
    part of them, `prompt` the question's. `share` is the run's part of the wall time in seconds: time
    during which several runs were in flight counts for each by an equal part. `cut`: a bound cut the answer.
    """

    item: str
    strategy: str
    budget: str
    draw: int
    seed: int
    kind: Kind
    answer: str | None
    text: str
    score: float | None
    tokens: int
    prefill: int
    prompt: int
    scorer_tokens: int
    scorer_prefill: int
    pages: int
    flops: float
    share: float
    stopped_by: str
    cut: bool
    oracle: bool

    @property
    def key(self) -> Key:
        return Key(self.item, self.strategy, self.budget, self.draw)


_NAMES = {field.name for field in fields(Sample)}


def budget_key(budget: Budget) -> str:
    """A budget's bounds, all digits kept."""
    return json.dumps({name: value for name, value in asdict(budget).items() if value is not None}, sort_keys=True)


class Store:
    """Samples by key, in memory and, with a path, on disk. `settings`: what every sample of the file depends on.

    An existing file is read first; a last line that a kill has torn is cut off. Raises InvalidRequest for a file
    that belongs to other settings, that is no store, or that another process writes.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.settings = {"format": FORMAT, **json.loads(json.dumps(dict(settings)))}
        self.samples: dict[Key, Sample] = {}
        self._file: BinaryIO | None = None
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            self._lock()
            self._read()
        except BaseException:
            self.close()
            raise

    def add(self, sample: Sample) -> None:
        """Appends a sample; one that is there already stays."""
        if sample.key in self.samples:
            return
        self.samples[sample.key] = sample
        self._write(asdict(sample))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _lock(self) -> None:
        assert self._file is not None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InvalidRequest(
                f"Another evaluation writes {self.path}; wait for it, or give another --store.", "store"
            ) from None

    def _read(self) -> None:
        assert self._file is not None
        self._file.seek(0)
        *lines, torn = self._file.read().split(b"\n")
        for number, line in enumerate(lines):
            self._take(number, line)
        self._file.truncate(self._file.tell() - len(torn))
        self._file.seek(0, os.SEEK_END)
        if not lines:
            self._write(self.settings)

    def _take(self, number: int, line: bytes) -> None:
        try:
            found = json.loads(line)
            if number == 0:
                self._same(found)
                return
            sample = Sample(**{name: value for name, value in found.items() if name in _NAMES})
        except (ValueError, TypeError, AttributeError) as error:
            if isinstance(error, InvalidRequest):
                raise
            raise InvalidRequest(
                f"{self.path} has no sample in line {number + 1}; give another --store, or remove that line.", "store"
            ) from None
        self.samples[sample.key] = sample

    def _same(self, found: Mapping[str, Any]) -> None:
        if "format" not in found:
            raise InvalidRequest(f"{self.path} is no store of samples; give another --store.", "store")
        for name, value in self.settings.items():
            if found.get(name) != value:
                raise InvalidRequest(
                    f"{self.path} belongs to {name} {found.get(name)!r}, this evaluation has {value!r}; "
                    f"give another --store.",
                    "store",
                )

    def _write(self, value: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")
            self._file.flush()
