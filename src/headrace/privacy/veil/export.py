"""Makes a veiled model's folder out of a model and a key, one tensor at a time."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from headrace.model.catalogue import Progress
from headrace.model.loading import LoadedModel, load_model
from headrace.model.tensor import Tensor
from headrace.privacy.veil.artefact import (
    Manifest,
    refuse_tokenizer,
    sha256_of,
    verify,
    write_manifest,
)
from headrace.privacy.veil.errors import ArtefactError, KeyFileError, SymmetryError
from headrace.privacy.veil.frames import CONDITION
from headrace.privacy.veil.keyfile import ClientKey
from headrace.privacy.veil.planner import untied
from headrace.privacy.veil.published import FileTensor, file_tensors
from headrace.privacy.veil.rules import Plan
from headrace.privacy.veil.settings import folder_settings, veiled_settings, written_settings
from headrace.privacy.veil.shards import SHARD, Kind, cut, index_of, write_shard
from headrace.privacy.veil.source import source_digest
from headrace.privacy.veil.tokens import TokenMap
from headrace.privacy.veil.transform import Veil
from headrace.spec.ledger import Ledger
from headrace.spec.model import ModelSpec
from headrace.spec.program import compile_program

HALF_CONDITION = 1.5
"""Most condition number of keys whose weights may be stored in half precision, which has 5 bits of exponent."""
MOST_CONDITION = 10.0
"""Beyond it float32's rounding grows towards the error that the manifest promises to stay below."""


@dataclass(frozen=True, slots=True)
class Export:
    """How a model is exported. `condition`: most condition number of a key; `shard`: bytes of a file."""

    dtype: Kind = "f32"
    condition: float = CONDITION
    shard: int = SHARD

    def __post_init__(self) -> None:
        if not 1 <= self.condition <= MOST_CONDITION:
            raise SymmetryError(f"A condition number of {self.condition:g}; give one from 1 to {MOST_CONDITION:g}.")
        if self.dtype == "f16" and self.condition > HALF_CONDITION:
            raise SymmetryError(
                f"Keys of condition {self.condition:g} lose small values in half precision; export with --dtype bf16,"
                f" or with --condition {HALF_CONDITION:g} at most."
            )


def export(
    source: Path, key: ClientKey, target: Path, how: Export = Export(), progress: Progress | None = None
) -> Manifest:
    """Writes `target`: safetensors, config.json and a signed veil.json, no tokenizer; whole or not at all.

    Raises KeyFileError for another model's key, ArtefactError for a target that is not empty or has a tokenizer,
    SymmetryError for a model that cannot be veiled.
    """
    if target.exists():
        refuse_tokenizer(target)
        if any(target.iterdir()):
            raise ArtefactError(f"{target} is not empty; choose another folder.")
    if source_digest(source) != key.master.model:
        raise KeyFileError(f"The key is for {key.name}, not for {source.name}; make one with `headrace veil keygen`.")
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        manifest = _write(load_model(source, Ledger()), key, partial, how, progress)
        verify(partial, key)
        if target.exists():
            target.rmdir()
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _write(loaded: LoadedModel, key: ClientKey, folder: Path, how: Export, progress: Progress | None) -> Manifest:
    weights = loaded.weights.lease(compile_program(loaded.spec).operations)
    spec, tensors = untied(loaded.spec, weights)
    veil = Veil(spec, key.master, how.condition)
    veil.plan.check(tensors)
    files = _write_settings(loaded, spec, key, folder, how)
    layout = file_tensors(spec)
    shards = cut(layout, how.dtype, how.shard)
    done = itertools.count(1)

    def fill(tensor: FileTensor) -> Iterator[np.ndarray]:
        yield from filled(veil, tensor, tensors)
        if progress is not None:
            progress(tensor.name, next(done), len(layout))

    for shard in shards:
        files[shard.name] = write_shard(folder, shard, how.dtype, fill)
    if len(shards) > 1:
        files |= _write_json(folder, "model.safetensors.index.json", index_of(shards, how.dtype))
    _check_read_back(folder, spec)
    public = key.master.signer().public_key().public_bytes_raw().hex()
    names = sorted(tensor.name for tensor in layout)
    master, groups = key.master, described(veil.plan)
    manifest = Manifest(
        spec.family, master.model, master.key_id(), master.epoch, public, how.dtype, how.condition, groups, files, names
    )
    write_manifest(folder, manifest, key)
    return manifest


def _write_settings(loaded: LoadedModel, spec: ModelSpec, key: ClientKey, folder: Path, how: Export) -> dict[str, str]:
    published = (loaded.source / "config.json").is_file()
    given = folder_settings(loaded.source, spec) if published else written_settings(spec)
    settings = veiled_settings(spec, given, how.dtype) | TokenMap.of(key).veiled_specials(key.specials)
    return _write_json(folder, "config.json", settings)


def _write_json(folder: Path, name: str, value: Mapping[str, Any]) -> dict[str, str]:
    (folder / name).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    return {name: sha256_of([folder / name])}


def filled(veil: Veil, tensor: FileTensor, tensors: Mapping[str, Tensor]) -> Iterator[np.ndarray]:
    """The values of a checkpoint's tensor, piece by piece as the file has them."""
    pieces = (piece for part in tensor.parts for piece in veil.pieces(part.tensor, tensors, part.expert))
    if tensor.transposed:
        yield np.concatenate(list(pieces)).T
        return
    for piece in pieces:
        yield piece + tensor.shift if tensor.shift else piece


def _check_read_back(folder: Path, spec: ModelSpec) -> None:
    """What lies in the folder is this model: its settings, and the name and shape of every tensor."""
    found = load_model(folder, Ledger()).spec
    if found != replace(spec, name=found.name, bos=None, eos=()):
        raise SymmetryError(f"The settings of {spec.family} read back as another model; veil another one.")


def described(plan: Plan) -> dict[str, str]:
    """What keys what, in words; layers that differ are joined by a comma."""
    layers = {
        "qk": [heads.qk for heads in plan.heads.values()],
        "vo": [heads.vo for heads in plan.heads.values()],
        "units": [units.up for units in plan.units.values()],
    }
    return {"stream": plan.stream.group, "tokens": plan.tokens} | {
        name: ", ".join(dict.fromkeys(groups)) for name, groups in layers.items()
    }
