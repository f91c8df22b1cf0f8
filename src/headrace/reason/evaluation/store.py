"""The samples of an evaluation and their scores: a JSON line each, appended when it is done: a kill loses none."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TypeAlias

from headrace.spec.budget import Budget
from headrace.spec.errors import InvalidRequest

FORMAT = 2
"""Files of format 1 are read where they are of attempts without a scorer."""
Kind: TypeAlias = Literal["right", "wrong", "unparsed", "timeout", "budget"]
KINDS: tuple[Kind, ...] = ("right", "wrong", "unparsed", "timeout", "budget")
"""What became of an attempt. Budget: a bound cut it before it had said its answer; timeout: the seconds' bound, or
a comparison of answers that was given up."""


class Key(NamedTuple):
    """`draw` counts independent repetitions of the same strategy on the same question.

    `scorer`: of a strategy that asked one as it ran.
    """

    item: str
    strategy: str
    budget: str
    draw: int
    scorer: str | None = None


class ScoringKey(NamedTuple):
    """`draw`: of an attempt of the pool."""

    item: str
    draw: int
    scorer: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one strategy on one question.

    `tokens` and `prefill` are all that was drawn and given; `scorer_tokens` and `scorer_prefill` are the scorer's
    part of them, `prompt` the question's. `share` is the run's part of the wall time in seconds: time
    during which several runs were in flight counts for each by an equal part. `cut`: a bound cut the answer.
    `ids`: all tokens that an attempt of the pool drew, so that any scorer can look at it later.
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
    scorer: str | None = None
    ids: tuple[int, ...] = ()

    @property
    def key(self) -> Key:
        return Key(self.item, self.strategy, self.budget, self.draw, self.scorer)


@dataclass(frozen=True, slots=True)
class Scoring:
    """What a scorer made of one attempt of the pool, and what that cost beside the attempt.

    `score` None: the question alone does not fit the context. `pages`: held for the look beyond the attempt's own.
    """

    item: str
    draw: int
    scorer: str
    score: float | None
    scorer_tokens: int
    scorer_prefill: int
    pages: int
    flops: float
    share: float

    @property
    def key(self) -> ScoringKey:
        return ScoringKey(self.item, self.draw, self.scorer)


Record: TypeAlias = Sample | Scoring


def budget_key(budget: Budget) -> str:
    """A budget's bounds, all digits kept."""
    return json.dumps({name: value for name, value in asdict(budget).items() if value is not None}, sort_keys=True)


class Store:
    """Samples and scorings by key, in memory and, with a path, on disk. `settings`: what all of the file depends on.

    An existing file is read first; a last line that a kill has torn is cut off. Raises InvalidRequest for a file
    that belongs to other settings, that is no store, or that another process writes.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.settings = {"format": FORMAT, **json.loads(json.dumps(dict(settings)))}
        self.samples: dict[Key, Sample] = {}
        self.scorings: dict[ScoringKey, Scoring] = {}
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

    @classmethod
    def load(cls, path: Path) -> Store:
        """A store to be read alone, whatever its settings, also while an evaluation writes it.

        Raises InvalidRequest for a file that is no store.
        """
        lines = path.read_bytes().split(b"\n")[:-1]
        store = cls(None, _settings(path, lines))
        store.path = path
        for number, line in enumerate(lines):
            store._take(number, line)
        return store

    def add(self, record: Record) -> None:
        """Appends a sample or a scoring; one that is there already stays."""
        if not self.has(record.key):
            self._keep(record)
            self._write(asdict(record))

    def has(self, key: Key | ScoringKey) -> bool:
        return key in self.samples or key in self.scorings

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
            self._keep(_record(found))
        except (ValueError, TypeError, AttributeError) as error:
            if isinstance(error, InvalidRequest):
                raise
            raise InvalidRequest(
                f"{self.path} has no sample in line {number + 1}; give another --store, or remove that line.", "store"
            ) from None

    def _keep(self, record: Record) -> None:
        if isinstance(record, Sample):
            self.samples[record.key] = record
        else:
            self.scorings[record.key] = record

    def _same(self, found: Mapping[str, Any]) -> None:
        if "format" not in found:
            raise InvalidRequest(f"{self.path} is no store of samples; give another --store.", "store")
        if found["format"] == 1 and found.get("scorer") is not None:
            raise InvalidRequest(
                f"{self.path} is of format 1 and all its attempts belong to the scorer {found['scorer']}; "
                f"give another --store.",
                "store",
            )
        for name in {**self.settings, **found}:
            value = self.settings.get(name)
            if found.get(name) != value and (name, found.get(name)) != ("format", 1):
                raise InvalidRequest(
                    f"{self.path} belongs to {name} {found.get(name)!r}, this evaluation has {value!r}; "
                    f"give another --store.",
                    "store",
                )

    def _write(self, value: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")
            self._file.flush()


def _settings(path: Path, lines: list[bytes]) -> dict[str, Any]:
    with contextlib.suppress(ValueError, IndexError):
        found = json.loads(lines[0])
        if isinstance(found, dict) and "format" in found:
            return found
    raise InvalidRequest(f"{path} is no store of samples; give one that headrace eval wrote.", "store")


def _record(found: Mapping[str, Any]) -> Record:
    """What a line holds; names of later versions are left out."""
    kind = Sample if "strategy" in found else Scoring
    known: dict[str, Any] = {field.name: found[field.name] for field in fields(kind) if field.name in found}
    if "ids" in known:
        known["ids"] = tuple(known["ids"])
    return kind(**known)
