"""What a computation on shares may fail of."""

from __future__ import annotations

from headrace.spec.errors import HeadraceError


class WorkerUnavailable(HeadraceError):
    """The environment that SPU needs is not here, or cannot be made here."""


class PartiesFailed(HeadraceError):
    """A party or the dealer stopped, or refused a program."""
