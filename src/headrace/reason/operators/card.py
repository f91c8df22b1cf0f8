"""What an operator asks and which form its answer has, read from the data files beside this module."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from headrace.spec.errors import InvalidRequest
from headrace.spec.sampling import Stop


@dataclass(frozen=True, slots=True)
class Card:
    """One operator. `hash`: the first 16 hex digits of its file's SHA-256; it stands in every trace beside `version`.

    `form`: what an answer looks like (`reading` checks it). `tokens` 0: as many as the task allows an attempt.
    `temperature` None: that of the run.
    """

    name: str
    version: int
    form: str
    template: str
    tokens: int
    stop: tuple[str, ...]
    temperature: float | None
    hash: str

    @property
    def ending(self) -> Stop:
        return Stop(tokens=self.tokens, text=self.stop)

    def text(self, **values: object) -> str:
        return self.template.format(**values)


@cache
def cards() -> dict[str, Card]:
    """All operators by name."""
    found = [item for item in files("headrace.reason.operators").iterdir() if item.name.endswith(".toml")]
    return {card.name: card for card in sorted(map(_card, found), key=lambda card: card.name)}


def find_card(name: str) -> Card:
    """Raises InvalidRequest for an unknown name."""
    if name not in cards():
        raise InvalidRequest(f"There is no operator {name!r}; choose one of {', '.join(cards())}.", "operator")
    return cards()[name]


def _card(file: Traversable) -> Card:
    raw = file.read_bytes()
    told = tomllib.loads(raw.decode())
    return Card(
        file.name.removesuffix(".toml"),
        told["version"],
        told["form"],
        told["template"],
        told["tokens"],
        tuple(told.get("stop", ())),
        told.get("temperature"),
        hashlib.sha256(raw).hexdigest()[:16],
    )
