"""What opens a key file, and what locks a new one: age recipients and identities, or a passphrase."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.spec.errors import InvalidRequest

if TYPE_CHECKING:
    from headrace.privacy.veil.keyfile import ClientKey, Lock, Opener, TokenBudget

Passphrase = Annotated[
    Path | None, typer.Option("--passphrase-file", help="File whose first line is the passphrase (default: asked).")
]
Identity = Annotated[Path | None, typer.Option(help="File with the age identity that opens the key.")]


@dataclass(frozen=True, slots=True)
class Opening:
    """The flags of every verb that opens a key file."""

    identity: Identity = None
    passphrase_file: Passphrase = None

    def opener(self) -> Opener:
        from headrace.privacy.veil.keyfile import Opener

        if self.identity is not None:
            lines = [line.strip() for line in self.identity.read_text("utf-8").splitlines()]
            return Opener(next((line for line in lines if line.startswith("AGE-SECRET-KEY-")), ""))
        return Opener(passphrase=asked_passphrase(self.passphrase_file, again=False))

    def unlocked(self, path: Path) -> tuple[ClientKey, TokenBudget]:
        from headrace.privacy.veil.keyfile import read_key

        return read_key(path, self.opener())


def lock(recipients: list[str], passphrase_file: Path | None) -> Lock:
    from headrace.privacy.veil.keyfile import Lock

    if recipients:
        return Lock(tuple(recipients), None if passphrase_file is None else first_line(passphrase_file))
    return Lock(passphrase=asked_passphrase(passphrase_file, again=True))


def asked_passphrase(file: Path | None, again: bool) -> str:
    if file is None:
        found: str = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=again, err=True)
    else:
        found = first_line(file)
    if not found:
        raise InvalidRequest("The passphrase is empty; give one, or --recipient.", "passphrase_file")
    return found


def first_line(path: Path) -> str:
    return path.read_text("utf-8").splitlines()[0].strip() if path.stat().st_size else ""
