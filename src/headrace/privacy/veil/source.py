"""The model that a veil is made from: its digest, its special tokens, and a key for it."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from headrace.model.folder import read_json
from headrace.model.gguf_file import read_gguf
from headrace.model.loading import LoadedModel, load_model
from headrace.privacy.veil.artefact import SPECIAL, sha256_of
from headrace.privacy.veil.keyfile import STRICT_BUDGET, ClientKey
from headrace.privacy.veil.keys import Master
from headrace.spec.ledger import Ledger


def new_key(source: Path, budget: int = STRICT_BUDGET) -> ClientKey:
    """A key for a model: a folder or a GGUF file. Raises ModelFileError, UnsupportedModel."""
    loaded = load_model(source, Ledger())
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    master = Master.new(source_digest(source))
    return ClientKey(master, loaded.spec.vocab, budget, today, loaded.name, special_ids(loaded))


def source_digest(source: Path) -> str:
    """Hex SHA-256 of a model's files: weights by name, then config.json."""
    if source.is_file():
        return sha256_of(read_gguf(source).paths)
    config = [source / "config.json"] if (source / "config.json").is_file() else []
    weights = sorted([*source.glob("*.safetensors")] if config else [*source.glob("*.gguf")])
    return sha256_of([*weights, *config])


def special_ids(loaded: LoadedModel) -> dict[str, int | list[int]]:
    """bos, eos and padding of a model, by their setting."""
    spec, config = loaded.spec, loaded.source / "config.json"
    found: dict[str, Any] = {}
    if config.is_file():
        whole = read_json(config)
        text = whole.get("text_config")
        found = {name: value for name in SPECIAL if (value := (text or {}).get(name, whole.get(name))) is not None}
    known = {"bos_token_id": spec.bos, "eos_token_id": list(spec.eos) or None}
    found |= {name: ids for name, ids in known.items() if ids is not None}
    return {name: ids for name, ids in found.items() if name in SPECIAL and _within(ids, spec.vocab)}


def _within(ids: int | list[int], vocab: int) -> bool:
    return all(0 <= token < vocab for token in ([ids] if isinstance(ids, int) else ids))
