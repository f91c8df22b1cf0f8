"""Whether the libraries of the extra [privacy] are there, asked before anything is read or loaded."""

from __future__ import annotations

from importlib.util import find_spec

from headrace.spec.errors import HeadraceError


def check_veil() -> None:
    """Raises HeadraceError where what keys need is missing."""
    _check("The veil needs", "cryptography", "pyrage")


def check_attacks() -> None:
    """Raises HeadraceError where what keys or attacks need is missing."""
    _check("Attacks need", "cryptography", "pyrage", "scipy")


def _check(who: str, *libraries: str) -> None:
    if not all(map(find_spec, libraries)):
        *others, last = libraries
        raise HeadraceError(f"{who} {', '.join(others)} and {last}; run `pip install headrace[privacy]`.")
