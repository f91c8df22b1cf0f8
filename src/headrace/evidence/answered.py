"""What a claim that runs for minutes has been answered so far, so that a kill loses only what was in flight."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from headrace.evidence.machine import commit_of
from headrace.evidence.registry import project_root
from headrace.model.catalogue import cache_folder


class Answered:
    """Answers by key, in memory and, with a path, as JSON lines that are appended one by one.

    A last line that a kill has torn is cut off.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path, self._found, self._file = path, dict[str, Any](), None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
            self._read(self._file)

    @classmethod
    def of(cls, claim: str) -> Answered:
        """The file of this claim and commit in the cache; none where the code differs from what is committed."""
        commit = commit_of(project_root())
        if not commit or commit.endswith("+"):
            return cls()
        return cls(cache_folder() / "evidence" / f"{claim}-{commit}.jsonl")

    def get(self, *key: object) -> Any | None:
        return self._found.get(json.dumps(key))

    def add(self, value: Any, *key: object) -> None:
        """`value` and the parts of `key`: what JSON can say."""
        self._found[json.dumps(key)] = value
        if self._file is not None:
            self._file.write(json.dumps([json.dumps(key), value]).encode() + b"\n")
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Answered:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, file: BinaryIO) -> None:
        file.seek(0)
        *lines, torn = file.read().split(b"\n")
        self._found = dict(map(json.loads, lines))
        file.truncate(file.tell() - len(torn))
        file.seek(0, os.SEEK_END)
