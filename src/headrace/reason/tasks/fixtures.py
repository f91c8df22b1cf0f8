"""Small language models that are trained here, right often enough to gain from a search and wrong as often.

LM-T answers ARITH, its third kind `lm-t-reader` READER; `programmer` writes PROGRAMS.

from headrace import LLM
from headrace.reason.tasks.fixtures import fixture

with LLM(fixture("lm-t-small")) as llm:
    ...
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import headrace.adapt
from headrace.adapt.kept import kept, trained_folder
from headrace.adapt.lesson import Draw
from headrace.adapt.recipe import Recipe, Source, read_recipe
from headrace.adapt.vocabulary import Vocabulary
from headrace.reason.tasks import arith_lessons, program_lessons, reader_lessons
from headrace.spec.errors import ModelFileError, UnsupportedModel

if TYPE_CHECKING:
    from headrace.adapt.train import Report

RECIPES = Path(headrace.adapt.__file__).parent / "recipes"


def fixture_names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in RECIPES.glob("*.toml")))


def fixture_recipe(name: str) -> Recipe:
    """Raises ModelFileError for a name that no recipe has."""
    if name not in fixture_names():
        raise ModelFileError(f"No fixture is called {name!r}; give one of {', '.join(fixture_names())}.")
    return read_recipe(RECIPES / f"{name}.toml")


def fixture(name: str, report: Report | None = None) -> Path:
    """The folder of a trained model, from the cache or trained now, which takes minutes.

    `report(progress)` is told of every step; without it a line is printed now and then. A run that was stopped
    goes on where it was. Raises ModelFileError for an unknown name, UnsupportedModel without torch.
    """
    recipe = fixture_recipe(name)
    return kept(recipe, lambda folder: _train(recipe, folder, report))


def ready(name: str) -> bool:
    """Whether a fixture is in the cache, so that `fixture` has nothing to train. Raises ModelFileError."""
    return (trained_folder() / fixture_recipe(name).digest).is_dir()


def _train(recipe: Recipe, folder: Path, report: Report | None) -> None:
    if find_spec("torch") is None:
        raise UnsupportedModel(
            f"{recipe.name} has to be trained first, which needs torch; install it with: pip install 'headrace[torch]'."
        )
    from headrace.adapt.full import train_full
    from headrace.adapt.report import Lines

    draw, vocabulary = lessons(recipe.lessons)
    train_full(recipe, draw, vocabulary, folder, report or Lines(f"Training {recipe.name}"))


def lessons(source: Source) -> tuple[Draw, Vocabulary]:
    """The generator that a recipe names. Raises ModelFileError for one that is not here or has changed since."""
    if source.name not in _SOURCES:
        raise ModelFileError(f"No lessons are called {source.name!r}; give one of {', '.join(_SOURCES)}.")
    build, version, vocabulary = _SOURCES[source.name]
    if source.version != version:
        raise ModelFileError(
            f"The recipe wants version {source.version} of the lessons {source.name!r} and this is {version}; "
            "correct the recipe."
        )
    try:
        return msgspec.convert(source.settings, build), vocabulary()
    except msgspec.ValidationError as error:
        raise ModelFileError(
            f"The lessons {source.name!r} do not take these settings ({error}); correct them."
        ) from None


def _arith_vocabulary() -> Vocabulary:
    return Vocabulary(arith_lessons.vocabulary(), arith_lessons.TOKENS)


def _program_vocabulary() -> Vocabulary:
    return Vocabulary(program_lessons.vocabulary(), program_lessons.TOKENS)


def _reader_vocabulary() -> Vocabulary:
    return Vocabulary(reader_lessons.vocabulary(), reader_lessons.TOKENS)


_SOURCES: dict[str, tuple[type[Draw], int, Callable[[], Vocabulary]]] = {
    "arith": (arith_lessons.ArithLessons, arith_lessons.VERSION, _arith_vocabulary),
    "programs": (program_lessons.ProgramLessons, program_lessons.VERSION, _program_vocabulary),
    "reader": (reader_lessons.ReaderLessons, reader_lessons.VERSION, _reader_vocabulary),
}
"""Name -> settings that draw lessons, their version, their vocabulary."""
