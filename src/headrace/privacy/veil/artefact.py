"""A veiled model's folder: what lies in it, and how it is signed and checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from headrace.model.folder import read_json
from headrace.privacy.veil.errors import ArtefactError
from headrace.privacy.veil.keyfile import ClientKey
from headrace.privacy.veil.keys import SCHEME
from headrace.privacy.veil.notice import MANIFEST
from headrace.privacy.veil.tokens import TokenMap

PROFILE = (
    "veil: obfuscation of token ids, caches and logs, by the same operations. No defence against whoever holds the"
    " public weights this model was made from, or reads a few thousand of its token ids."
)
TOKENIZER_FILES = (
    "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template*",
    "*.tiktoken", "spiece.model", "sentencepiece*", "*.spm", "*.gguf",
)  # fmt: skip
"""Each of these tells which text a token id stands for."""

SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True, slots=True)
class Manifest:
    """veil.json without its signature. `files`: name -> hex SHA-256. `groups`: what keys the stream and the layers.

    `tolerance`: relative error of un-permuted fp32 logits that the exactness tests allow.
    """

    family: str
    source: str
    key_id: str
    epoch: int
    public_key: str
    dtype: str
    condition: float
    groups: dict[str, str]
    files: dict[str, str]
    tensors: list[str]
    tolerance: float = 1e-5
    scheme: str = SCHEME
    profile: str = PROFILE

    def signed_bytes(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()


def write_manifest(folder: Path, manifest: Manifest, key: ClientKey) -> None:
    signature = key.master.signer().sign(manifest.signed_bytes()).hex()
    text = json.dumps(asdict(manifest) | {"signature": signature}, indent=1)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """veil.json, of this scheme, whose signature holds under the public key that it names. Raises ArtefactError."""
    if not (folder / MANIFEST).is_file():
        raise ArtefactError(f"{folder} has no {MANIFEST}; give the folder of a veiled model.")
    found = read_json(folder / MANIFEST)
    if (scheme := found.get("scheme")) != SCHEME:
        raise ArtefactError(f"{folder / MANIFEST} is of scheme {scheme}, not {SCHEME}; export the model again.")
    try:
        signature = bytes.fromhex(found.pop("signature"))
        manifest = Manifest(**found)
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(manifest.public_key))
        public.verify(signature, manifest.signed_bytes())
    except (KeyError, TypeError, ValueError, InvalidSignature):
        raise ArtefactError(f"{folder / MANIFEST} was changed after it was signed; export the model again.") from None
    return manifest


def verify(folder: Path, key: ClientKey | None = None) -> Manifest:
    """Checks every file against the signed list; with the key, also that it is this key's and that ids are moved.

    Without the key, the signature tells only that the files are those the manifest's author wrote.
    Raises ArtefactError naming the first thing that is wrong.
    """
    refuse_tokenizer(folder)
    manifest = read_manifest(folder)
    if key is not None:
        _check_key(manifest, key)
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {MANIFEST}
    if strange := sorted(present ^ manifest.files.keys()):
        state = "is not in the signed list" if strange[0] in present else "is missing"
        raise ArtefactError(f"{strange[0]} {state}; export the model again.")
    for name, digest in manifest.files.items():
        if sha256_of([folder / name]) != digest:
            raise ArtefactError(f"{name} was changed after it was signed; export the model again.")
    _check_settings(read_json(folder / "config.json"), manifest, key)
    return manifest


def _check_key(manifest: Manifest, key: ClientKey) -> None:
    master = key.master
    if manifest.public_key != master.signer().public_key().public_bytes_raw().hex():
        now = f"; the key is of epoch {master.epoch}" if manifest.epoch != master.epoch else ""
        raise ArtefactError(f"This model was veiled with another key{now}; export it again with this one.")
    if (manifest.key_id, manifest.epoch, manifest.source) != (master.key_id(), master.epoch, master.model):
        raise ArtefactError(f"{MANIFEST} names another key or source than this key's; export the model again.")


def _check_settings(config: Mapping[str, Any], manifest: Manifest, key: ClientKey | None) -> None:
    if config.get("tie_word_embeddings") is not False:
        raise ArtefactError(
            "config.json ties the head to the embedding, which have other keys; export the model again."
        )
    if key is not None and (wrong := fixed_ids(config, key)):
        raise ArtefactError(
            f"config.json has {wrong} where the source has it; its token ids are not moved, export again."
        )


def fixed_ids(config: Mapping[str, Any], key: ClientKey) -> str | None:
    """The first setting of special tokens that is not what the key's token map makes of the source's."""
    moved = TokenMap.of(key).veiled_specials(key.specials)
    return next((name for name in SPECIAL if config.get(name) != moved.get(name)), None)


def refuse_tokenizer(folder: Path) -> None:
    """Raises ArtefactError where a file would tell which text an id stands for."""
    for pattern in TOKENIZER_FILES:
        for path in folder.rglob(pattern):
            raise ArtefactError(
                f"{path.name} stands in {folder}: with a tokenizer beside it a veil hides nothing; take it away."
            )


def sha256_of(files: Iterable[Path]) -> str:
    """Hex SHA-256 of one file; of several, that of their digests in this order."""
    digests = []
    for path in files:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256"))
    if len(digests) == 1:
        return digests[0].hexdigest()
    return hashlib.sha256(b"".join(digest.digest() for digest in digests)).hexdigest()
