"""What scores an attempt: the model asked yes or no, a head on its hidden states, an exact checker with noise."""

from __future__ import annotations

import re
from pathlib import Path

from headrace.adapt.head import ABOUT
from headrace.engine.surface import Surface
from headrace.model.catalogue import cache_folder
from headrace.reason.scorers.judge import Judge
from headrace.spec.errors import InvalidRequest, ModelFileError
from headrace.spec.reasoning import Scorer

_PROBE = re.compile(r"probe\((?P<name>[^()]+)\)")
_KEPT = re.compile(r"\w[\w.-]*")


def scorer_named(name: str, folders: bool = False) -> Scorer:
    """`judge`, or `probe(NAME)` by the name it is kept under; with `folders`, NAME may be a path as well.

    Raises InvalidRequest, ModelFileError for a probe that is not there.
    """
    if name == "judge":
        return Judge()
    if match := _PROBE.fullmatch(name.strip()):
        return _probe(match["name"].strip().strip("'\""), folders)
    raise InvalidRequest(f"There is no scorer {name!r}; give judge or probe(NAME).", "scorer")


def _probe(name: str, folders: bool) -> Scorer:
    from headrace.reason.scorers.probe import Probe

    if not folders and not _KEPT.fullmatch(name):
        raise InvalidRequest(f"{name!r} is no name of a probe; give one that is kept in the cache.", "scorer")
    folder = probe_folder(name)
    if not (folder / ABOUT).exists():
        raise ModelFileError(
            f"There is no probe {name}; make it with `headrace probe {name} MODEL --store FILE`, the attempts of an "
            "earlier `headrace eval`."
        )
    return Probe.load(folder)


def probe_folder(name: str) -> Path:
    """Where a probe of this name is kept; what is no plain name is the path of a folder."""
    return cache_folder() / "probes" / name if _KEPT.fullmatch(name) else Path(name).expanduser()


def check_scorer(scorer: Scorer | None, engine: Surface) -> None:
    """Raises InvalidRequest where the scorer is a probe of another model than the engine's."""
    head = getattr(scorer, "head", None)
    if head is None or (head.base, head.hidden) == (engine.model_name, engine.spec.hidden):
        return
    raise InvalidRequest(
        f"The probe reads states of {head.base}, width {head.hidden}, and this is {engine.model_name}, width "
        f"{engine.spec.hidden}; use it with its model, or train another with headrace probe.",
        "scorer",
    )
