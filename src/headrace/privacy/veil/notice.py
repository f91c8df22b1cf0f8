"""What a server of a veiled model tells everyone: under which key, and what the veil is worth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.model.folder import read_json
from headrace.privacy.veil.errors import ArtefactError, OtherKey

if TYPE_CHECKING:
    from headrace.privacy.veil.keys import Master

MANIFEST = "veil.json"
KEY_HEADER, PROFILE_HEADER = "x-headrace-veil", "x-headrace-profile"
"""Stand in every response of a veiled server."""


@dataclass(frozen=True, slots=True)
class Notice:
    """`key_id`: the name of the key, another one in each `epoch`. `profile`: what the veil hides, and what not."""

    key_id: str
    epoch: int
    profile: str

    @property
    def headers(self) -> dict[str, str]:
        return {KEY_HEADER: self.key_id, PROFILE_HEADER: self.profile}

    @classmethod
    def of(cls, folder: Path) -> Notice | None:
        """What veil.json of a model's folder says, unproved, as a server needs no key; None for a plain model.

        Raises ArtefactError for one that says nothing of the kind.
        """
        if not (folder / MANIFEST).is_file():
            return None
        return cls.read(read_json(folder / MANIFEST), f"{folder / MANIFEST}")

    @classmethod
    def read(cls, found: Any, where: str) -> Notice:
        """From parsed JSON. Raises ArtefactError where a value is missing or could not stand in a header."""
        values = [found.get(name) if isinstance(found, dict) else None for name in cls.__slots__]
        key_id, epoch, profile = values
        texts = (key_id, profile)
        if not isinstance(epoch, int) or not all(isinstance(text, str) and _fits_a_header(text) for text in texts):
            raise ArtefactError(f"{where} does not name a key, an epoch and a profile; export the model again.")
        return cls(*values)  # type: ignore[arg-type]


def _fits_a_header(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable()


def check_notice(said: Notice, master: Master) -> None:
    """Raises OtherKey where what a server says of its model is not this key in this epoch."""
    if said.key_id == master.key_id():
        return
    if said.key_id == master.at(said.epoch).key_id():
        raise OtherKey(
            f"The server's model was veiled in epoch {said.epoch} of this key, which is in epoch {master.epoch};"
            " export the model again and serve that folder."
        )
    raise OtherKey(
        f"The server's model was veiled with the key {said.key_id[:16]}, not with {master.key_id()[:16]};"
        " check --url and --key."
    )
