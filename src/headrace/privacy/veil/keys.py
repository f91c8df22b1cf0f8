"""From a master key to every secret of a veil: HKDF-SHA256 (RFC 5869), ChaCha20 (RFC 8439), numpy in float64.

Names are kept apart by domain: headrace/veil/v1/<model sha256>/<layer>/<role>/<epoch>. All draws come from one
stream of 64-bit little-endian words a name. Permutations and signs are the same on every machine; matrices may
differ in their last bits with the linear algebra library, so the artefact is the authority on them, and a client
needs the permutation of tokens only.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from headrace.privacy.veil.errors import KeyFileError

SCHEME = "headrace/veil/v1"
MODEL = "model"
"""Stands where a layer's number would, in the names of keys that are the whole model's."""


@dataclass(frozen=True, slots=True)
class Master:
    """32 secret bytes, the model that they are for (SHA-256 of its files, hex), and how often they were rotated."""

    secret: bytes
    model: str
    epoch: int = 0

    def __post_init__(self) -> None:
        if len(self.secret) != 32:
            raise KeyFileError(f"The master key has {len(self.secret)} bytes instead of 32; make a new key file.")

    def __repr__(self) -> str:
        return f"Master(model={self.model[:12]}…, epoch={self.epoch})"

    @classmethod
    def new(cls, model: str) -> Master:
        return cls(secrets.token_bytes(32), model)

    def rotated(self) -> Master:
        """The key of the next epoch: it shares no derived key with this one."""
        return self.at(self.epoch + 1)

    def at(self, epoch: int) -> Master:
        return replace(self, epoch=epoch)

    def derive(self, layer: int | str, role: str) -> bytes:
        """32 bytes that belong to this model, layer, role and epoch alone."""
        info = f"{SCHEME}/{self.model}/{layer}/{role}/{self.epoch}"
        return HKDF(SHA256(), length=32, salt=None, info=info.encode()).derive(self.secret)

    def stream(self, layer: int | str, role: str) -> Keystream:
        return Keystream(self.derive(layer, role))

    def key_id(self) -> str:
        """A name of this key that tells nothing else about it: hex SHA-256 of a derived tag."""
        digest = Hash(SHA256())
        digest.update(self.derive(MODEL, "tag"))
        return digest.finalize().hex()

    def signer(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.derive(MODEL, "sign"))


class Keystream:
    """ChaCha20 under one derived key, read in order."""

    def __init__(self, key: bytes) -> None:
        self._encryptor = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()

    def words(self, count: int) -> np.ndarray:
        """[count] uint64."""
        return np.frombuffer(self._encryptor.update(bytes(8 * count)), "<u8").astype(np.uint64)

    def uniform(self, count: int) -> np.ndarray:
        """[count] float64 in (0, 1), never 0 or 1: 52 bits and a half."""
        return ((self.words(count) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52

    def normals(self, count: int) -> np.ndarray:
        """[count] float64, standard normal (Box and Muller 1958)."""
        pairs = (count + 1) // 2
        radius, angle = np.sqrt(-2.0 * np.log(self.uniform(pairs))), 2.0 * np.pi * self.uniform(pairs)
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]

    def permutation(self, count: int) -> np.ndarray:
        """[count] int64: stable argsort of as many words; words with a tie are drawn anew."""
        while True:
            words = self.words(count)
            order = np.argsort(words, kind="stable")
            ordered = words[order]
            if not (ordered[1:] == ordered[:-1]).any():
                return order

    def signs(self, count: int) -> np.ndarray:
        """[count] float64 of -1 and 1."""
        return 1.0 - 2.0 * (self.words(count) >> np.uint64(63)).astype(np.float64)

    def orthogonal(self, size: int) -> np.ndarray:
        """[size, size] float64, Haar distributed: QR of normals, R with a positive diagonal (Mezzadri 2007)."""
        q, r = np.linalg.qr(self.normals(size * size).reshape(size, size))
        return q * np.where(np.diag(r) < 0, -1.0, 1.0)

    def scales(self, count: int, condition: float) -> np.ndarray:
        """[count] positive float64, log-uniform, the largest at most `condition` times the smallest."""
        return np.exp((self.uniform(count) - 0.5) * np.log(condition))

    def general(self, size: int, condition: float) -> np.ndarray:
        """[size, size] float64, invertible, with a condition number of at most `condition`."""
        left, right = self.orthogonal(size), self.orthogonal(size)
        return (left * self.scales(size, condition)) @ right
