"""Results of training, kept in the user's cache under the digest of their recipe and made at most once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from headrace.adapt.recipe import Recipe
from headrace.model.catalogue import cache_folder


def trained_folder() -> Path:
    return cache_folder() / "trained"


def kept(recipe: Recipe, make: Callable[[Path], object]) -> Path:
    """The folder of the recipe's result; `make(folder)` trains it where it is not there yet.

    `folder` must appear whole or not at all. A second process that wants the same waits for the first.
    """
    folder = trained_folder() / recipe.digest
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder.with_name(f"{folder.name}.lock")):
            if not folder.is_dir():
                make(folder)
    return folder


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Holds a lock file, which the system frees when the process ends, however it ends."""
    try:
        import fcntl
    except ImportError:  # no such lock on this system: two processes would do the same work twice
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
