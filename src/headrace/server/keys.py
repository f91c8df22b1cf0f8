"""API keys: a file of `key principal` lines; each request belongs to the principal of its key."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from headrace.server.errors import ApiError
from headrace.spec.errors import HeadraceError
from headrace.spec.labels import LOCAL


class KeyRing:
    """Known keys, held as SHA-256 digests. An empty ring lets everyone in as `local`."""

    def __init__(self, principals: dict[str, str] | None = None) -> None:
        self._entries = [(_digest(key), principal) for key, principal in (principals or {}).items()]

    @property
    def principals(self) -> frozenset[str]:
        return frozenset(principal for _, principal in self._entries)

    @classmethod
    def read(cls, path: str | Path | None) -> KeyRing:
        """Reads `key principal` lines; blank lines and lines that start with # are skipped.

        Raises HeadraceError when the file cannot be read, has a malformed line, or has no key.
        """
        if path is None:
            return cls()
        try:
            lines = Path(path).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise HeadraceError(f"The key file {path} cannot be read ({error}); check the path.") from error
        return cls(_parse(lines, Path(path)))

    def principal(self, authorization: str | None) -> str:
        """The principal of an `Authorization: Bearer KEY` header; raises ApiError 401.

        Every known key is compared, in constant time, whichever matches.
        """
        if not self._entries:
            return LOCAL
        scheme, _, key = (authorization or "").partition(" ")
        digest = _digest(key.strip())
        found = None
        for known, principal in self._entries:
            if hmac.compare_digest(known, digest):
                found = principal
        if found is None or scheme.lower() != "bearer":
            raise _unauthorised(authorization is None)
        return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _parse(lines: list[str], path: Path) -> dict[str, str]:
    principals: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or words[0] in principals:
            raise HeadraceError(f"Line {number} of {path} is not one new `key principal` pair; correct it.")
        if not (words[0].isascii() and words[0].isprintable()):
            raise HeadraceError(f"The key in line {number} of {path} has characters no header carries; use ASCII only.")
        principals[words[0]] = words[1]
    if not principals:
        raise HeadraceError(f"The key file {path} has no key; add a `key principal` line.")
    return principals


def _unauthorised(missing: bool) -> ApiError:
    message = (
        "No API key was sent; send `Authorization: Bearer KEY`."
        if missing
        else "This API key is not known here; ask the server's owner for one."
    )
    return ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
