"""A policy as a TOML file: the two lattices, and who may read what.

    [confidentiality]
    categories = ["hr", "law"]

    [integrity]                       # may be left out, and then in every label
    levels = ["rumour", "checked"]    # least trusted first

    [clearances]
    ann = {confidentiality = ["hr"], integrity = "checked"}
    eve = {confidentiality = [], integrity = "checked"}

    [adapters]
    house = {confidentiality = ["hr"], integrity = "checked"}

A lattice has `levels` or `categories`; a list of such tables is their product, whose elements are lists.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.privacy.labels.flow import FlowLabel, FlowLattice
from headrace.privacy.labels.lattice import Categories, Lattice, Levels, Product
from headrace.privacy.labels.policy import Policy
from headrace.spec.errors import HeadraceError

_ONE_LEVEL = Levels(("any",))
_TABLES = {"confidentiality", "integrity", "clearances", "adapters"}


def read_policy(path: str | Path) -> Policy:
    """Raises HeadraceError for a file that cannot be read, and for whatever in it is no policy."""
    try:
        given = tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:  # what TOML and UTF-8 refuse are ValueErrors
        raise HeadraceError(f"The policy {path} cannot be read ({error}); check the file.") from error
    try:
        return _policy(given)
    except HeadraceError as error:
        raise HeadraceError(f"{path}: {error}") from None


def _policy(given: Mapping[str, Any]) -> Policy:
    if unknown := sorted(given.keys() - _TABLES):
        raise HeadraceError(f"[{unknown[0]}] is no part of a policy; use {', '.join(sorted(_TABLES))}.")
    if "confidentiality" not in given or not isinstance(given.get("clearances"), dict):
        raise HeadraceError("A policy needs [confidentiality] and [clearances]; add them.")
    parts = {"confidentiality": _lattice("confidentiality", given["confidentiality"])}
    if "integrity" in given:
        parts["integrity"] = _lattice("integrity", given["integrity"])
    lattice = FlowLattice(parts["confidentiality"], parts.get("integrity", _ONE_LEVEL))
    adapters = given.get("adapters", {})
    if not isinstance(adapters, dict):
        raise HeadraceError("[adapters] is a table of name = label; correct it.")
    clearances = {who: _label(who, label, parts) for who, label in given["clearances"].items()}
    return Policy(lattice, clearances, {name: _label(name, label, parts) for name, label in adapters.items()})


def _lattice(name: str, given: Any) -> Lattice:
    if isinstance(given, list):
        return Product(tuple(_lattice(name, part) for part in given))
    kinds: dict[str, type[Levels] | type[Categories]] = {"levels": Levels, "categories": Categories}
    if isinstance(given, dict) and len(given) == 1:
        ((kind, names),) = given.items()
        if kind in kinds and isinstance(names, list) and all(isinstance(one, str) for one in names):
            return kinds[kind](tuple(names))
    raise HeadraceError(f"[{name}] is no lattice; give it `levels` or `categories`, a list of names.")


def _label(who: str, given: Any, parts: Mapping[str, Lattice]) -> FlowLabel:
    if not isinstance(given, dict) or given.keys() != parts.keys():
        raise HeadraceError(f"The label of {who} needs {' and '.join(parts)} and nothing else; correct it.")
    halves = {name: _element(who, lattice, given[name]) for name, lattice in parts.items()}
    return FlowLabel(halves["confidentiality"], halves.get("integrity", _ONE_LEVEL.top))


def _element(who: str, lattice: Lattice, given: Any) -> Any:
    """A name of a level, a list of categories, or a list with an element of each part of a product."""
    found = given
    if isinstance(lattice, Categories) and isinstance(given, list) and all(isinstance(one, str) for one in given):
        found = frozenset(given)
    elif isinstance(lattice, Product) and isinstance(given, list) and len(given) == len(lattice.parts):
        found = tuple(_element(who, part, one) for part, one in zip(lattice.parts, given, strict=True))
    if not lattice.has(found):
        raise HeadraceError(f"{given!r} in the label of {who} is not in its lattice; give one of its elements.")
    return found
