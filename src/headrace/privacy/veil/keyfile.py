"""Key files: a master key in an age envelope (age-encryption.org/v1), and the count of tokens it was used for.

The count stands in plain beside the key file, because it must grow without the key's passphrase. It guards its
owner against reading too much under one token map; it is no defence against someone who can write the file.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyrage

from headrace.privacy.veil.errors import KeyFileError, TokensSpent
from headrace.privacy.veil.keys import SCHEME, Master

STRICT_BUDGET = 3_000
"""Tokens under one token map: the least count at which bigram matching was measured (docs/privacy.md).

None of the measured counts is safe, and more tokens give more away. So the default goes no further than the figures
that say what it is worth: it bounds what ids alone give away and does not end it.
"""

BLOCK = 256
"""Most tokens of answers that are counted before they pass: a kill counts no more than these too many."""


@dataclass(frozen=True, slots=True)
class ClientKey:
    """What a client holds. `vocab`: size of the token map; `budget`: tokens that may pass under one epoch's map.

    `specials`: ids of the source's special tokens, by their setting (bos_token_id, eos_token_id, pad_token_id).
    """

    master: Master
    vocab: int
    budget: int = STRICT_BUDGET
    created: str = ""
    name: str = ""
    specials: dict[str, int | list[int]] = field(default_factory=dict)

    def rotated(self) -> ClientKey:
        return replace(self, master=self.master.rotated())

    def packed(self) -> bytes:
        secret = self.master.secret.hex()
        plain = {"scheme": SCHEME, "secret": secret, "model": self.master.model, "epoch": self.master.epoch}
        rest: dict[str, Any] = {"vocab": self.vocab, "budget": self.budget, "created": self.created, "name": self.name}
        rest["specials"] = self.specials
        return json.dumps(plain | {"key_id": self.master.key_id()} | rest).encode()

    @classmethod
    def unpacked(cls, data: bytes) -> ClientKey:
        try:
            held = json.loads(data)
            if held["scheme"] != SCHEME:
                raise KeyFileError(f"The key file is of scheme {held['scheme']}, not {SCHEME}; make a new one.")
            master = Master(bytes.fromhex(held["secret"]), str(held["model"]), int(held["epoch"]))
            rest = {name: held[name] for name in ("vocab", "budget", "created", "name", "specials")}
            key = cls(master, **rest)
        except (ValueError, KeyError, TypeError):
            raise KeyFileError("The key file holds no key; make a new one with `headrace veil keygen`.") from None
        if held.get("key_id") != master.key_id():
            raise KeyFileError("The key file contradicts itself; take a copy of it that was not changed.")
        return key


@dataclass(frozen=True, slots=True)
class Lock:
    """Who can open a key file: the holders of these age recipients' identities, or whoever knows a passphrase."""

    recipients: tuple[str, ...] = ()
    passphrase: str | None = field(default=None, repr=False)

    def close(self, data: bytes) -> bytes:
        """Raises KeyFileError for a recipient that is none, or where nothing or both are given."""
        if bool(self.recipients) == (self.passphrase is not None):
            raise KeyFileError("A key file is locked either to recipients or by a passphrase; give one of the two.")
        if self.passphrase is not None:
            return pyrage.passphrase.encrypt(data, self.passphrase)
        try:
            known = [pyrage.x25519.Recipient.from_str(text) for text in self.recipients]
        except pyrage.RecipientError:
            raise KeyFileError("A recipient is not of the form age1…; give an identity's public line.") from None
        return pyrage.encrypt(data, known)


@dataclass(frozen=True, slots=True)
class Opener:
    """What opens a key file: an age identity (AGE-SECRET-KEY-1…) or the passphrase."""

    identity: str | None = field(default=None, repr=False)
    passphrase: str | None = field(default=None, repr=False)

    def open(self, data: bytes) -> bytes:
        try:
            if self.identity is not None:
                return pyrage.decrypt(data, [pyrage.x25519.Identity.from_str(self.identity.strip())])
            return pyrage.passphrase.decrypt(data, self.passphrase or "")
        except (pyrage.DecryptError, pyrage.IdentityError):
            raise KeyFileError("The key file does not open with this; give its passphrase or age identity.") from None


def write_key(path: Path, key: ClientKey, lock: Lock, replace_old: bool = False) -> None:
    """Writes the wrapped key with mode 0600; no plain copy ever touches the disk. Refuses to overwrite a file."""
    data = lock.close(key.packed())
    if replace_old:
        _write_private(path, data)
        return
    try:
        _create_private(path, data)
    except FileExistsError:
        raise KeyFileError(
            f"{path} exists; choose another name, or rotate the key in it with `headrace veil rotate`."
        ) from None


def read_key(path: Path, opener: Opener) -> tuple[ClientKey, TokenBudget]:
    """The key and its budget. Raises KeyFileError, also for a file that others may read."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        data = path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read ({error.strerror}); check the path of the key file.") from None
    if mode & 0o077:
        raise KeyFileError(f"{path} has mode {mode:04o}, so that others may use it; run `chmod 600 {path}`.")
    key = ClientKey.unpacked(opener.open(data))
    return key, TokenBudget(spent_file(path), key)


def spent_file(path: Path) -> Path:
    return path.with_name(path.name + ".spent")


class TokenBudget:
    """Counts tokens under one epoch's token map, from any thread and process; the count survives them.

    The file counts a block of tokens before they pass, so that a proxy that is killed has counted them. What another
    process counted or set aside is seen when this one next writes.
    """

    def __init__(self, path: Path, key: ClientKey) -> None:
        self._path, self._master, self.budget = path, key.master, key.budget
        self._key_id = key.master.key_id()
        self._gate = threading.Lock()
        self._kept = self._ahead = self._renewed_at = 0
        self._kept = self._read() or 0

    @property
    def tokens(self) -> int:
        """Tokens that passed, and those that others set aside."""
        return self._kept - self._ahead

    def _read(self) -> int | None:
        """The count in the file; None where it is another key's or an earlier epoch's. Raises KeyFileError."""
        if not self._path.exists():
            return self._kept
        try:
            held = json.loads(self._path.read_text("utf-8"))
            counted_by, tokens, epoch = held["key_id"], int(held["tokens"]), int(held.get("epoch", 0))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise KeyFileError(f"{self._path} is damaged; rotate the key with `headrace veil rotate`.") from None
        if counted_by == self._key_id:
            return tokens
        if epoch > self._master.epoch and counted_by == self._master.at(epoch).key_id():
            raise KeyFileError(f"{self._path} counts for another epoch by now; start again with the rotated key.")
        return None

    def charge(self, tokens: int) -> None:
        """Counts the tokens of a prompt, and sets some aside for the answer.

        Raises TokensSpent where they leave no room for more, KeyFileError where the key was rotated meanwhile.
        """
        with self._gate, self._alone():
            self._take_in()
            if self.tokens + tokens >= self.budget:
                raise TokensSpent(
                    f"This token map has passed {self.tokens:,} of {self.budget:,} tokens and {tokens:,} more are"
                    " asked; rotate the key with `headrace veil rotate` and export the model again."
                )
            self._keep(self.tokens + tokens)

    def count(self, tokens: int) -> bool:
        """Counts tokens of an answer; whether one more may follow. Raises KeyFileError as `charge` does."""
        with self._gate:
            self._ahead -= tokens
            if self._ahead <= self._renewed_at:  # half a block before its end: a server is ahead of what has arrived
                with self._alone():
                    self._take_in()
                    self._keep(self.tokens)
            return self.tokens < self.budget

    def left(self) -> int:
        """Tokens that may still pass."""
        with self._gate:
            return max(0, self.budget - self.tokens)

    def settle(self) -> None:
        """Gives back what was set aside; for when no answer is under way."""
        with self._gate, self._alone():
            self._take_in()
            self._keep(self.tokens, aside=False)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process counts meanwhile. The folder is locked, as the file is replaced whole."""
        handle = os.open(self._path.parent, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _take_in(self) -> None:
        """What others have counted since. Raises KeyFileError where the key was rotated under this one."""
        found = self._read()
        if found is None:
            if self._kept:
                raise KeyFileError(f"{self._path} counts for another epoch by now; start again with the rotated key.")
            found = 0
        self._kept = found

    def _keep(self, passed: int, aside: bool = True) -> None:
        """Writes down what passed and, with `aside`, a block ahead: smaller ones towards the end, for others' sake."""
        left = max(0, self.budget - passed)
        self._ahead = min(BLOCK, max(left // 16, 1), left) if aside else 0
        self._kept, self._renewed_at = passed + self._ahead, self._ahead // 2
        counted = {"key_id": self._key_id, "epoch": self._master.epoch, "tokens": self._kept}
        _write_private(self._path, json.dumps(counted).encode())


def _write_private(path: Path, data: bytes) -> None:
    """Whole or not at all, and never readable by others in between."""
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    _create_private(fresh, data)
    try:
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _create_private(path: Path, data: bytes) -> None:
    """Raises FileExistsError where anything lies at `path`, a link to nowhere too: nothing is written through it."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
