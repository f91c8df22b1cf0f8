"""From a path to a spec, canonical weights and a tokenizer; nothing is decoded or copied here."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headrace.model.catalogue import name_of
from headrace.model.config import Config, gguf_config
from headrace.model.families import by_architecture, by_model_type
from headrace.model.folder import Folder, read_folder
from headrace.model.gguf_file import read_gguf
from headrace.model.identity import identity
from headrace.model.naming import canonical
from headrace.model.tensor import Tensor
from headrace.model.tokenizer import Tokenizer
from headrace.spec.errors import ModelFileError
from headrace.spec.executor import WeightStore
from headrace.spec.ledger import Ledger
from headrace.spec.model import ModelSpec
from headrace.spec.program import Operation, weight_names

_WRAPPERS = ("model.", "language_model.", "transformer.", "bert.")
_IGNORED_GGUF = r"^(rope_freqs|rope_factors_(long|short))\.weight$|^cls\.|^rope_freqs$"
_IGNORED_HF = (
    r"rotary_emb\.inv_freq$|\.attn\.(bias|masked_bias)$|position_ids$|^pooler\.|^cls\.|^classifier\."
    r"|vision_tower\.|multi_modal_projector\.|^score\."
)
"""Buffers, and heads of other uses than generation or embedding."""

_NONSENSE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What code meets in a file whose settings are not of the kind they should be."""


class ResidentStore(WeightStore):
    """Every weight stays where it is for as long as the model is loaded.

    `identity` tells whether weights derived from these can be used again; None where nothing can tell.
    """

    def __init__(self, weights: Mapping[str, Tensor], identity: str | None = None) -> None:
        self.weights, self.identity = dict(weights), identity

    def lease(self, operations: Sequence[Operation]) -> dict[str, Tensor]:
        return {name: self.weights[name] for operation in operations for name in weight_names(operation)}

    def release(self, operations: Sequence[Operation]) -> None:
        return None


@dataclass(slots=True)
class LoadedModel:
    """`name`: that of the catalogue, or of the file or folder.

    `weight_types`: stored kind -> number of tensors. `file_bytes`: size of the mapped files.
    """

    spec: ModelSpec
    weights: WeightStore
    tokenizer: Tokenizer | None
    name: str
    source: Path
    weight_types: dict[str, int]
    file_bytes: int


def load_model(path: str | Path, ledger: Ledger, context: int | None = None) -> LoadedModel:
    """Opens a .gguf file or a Hugging Face folder by memory map and records the map in the ledger.

    `context` is the longest sequence the caller will run, where known: it picks the long or short rope
    factors of models that have both. Raises ModelFileError or UnsupportedModel, one sentence each.
    """
    path = Path(path).expanduser()
    try:
        return _load(path, ledger, context)
    except _NONSENSE as error:
        raise ModelFileError(
            f"{path.name} has settings that make no sense ({type(error).__name__}: {error}); download it again."
        ) from None


def _load(path: Path, ledger: Ledger, context: int | None) -> LoadedModel:
    if path.is_dir():
        only = sorted(path.glob("*.gguf"))
        in_parts = len(only) > 1 and only[0].name.endswith(f"-00001-of-{len(only):05}.gguf")
        if not (path / "config.json").exists() and (len(only) == 1 or in_parts):
            return _load_gguf(only[0], ledger, context)
        return _load_folder(path, ledger, context)
    if not os.path.exists(path):
        raise ModelFileError(f"{path} does not exist; check the path or run `headrace models`.")
    return _load_gguf(path, ledger, context)


def _check_layers(count: Any, tensors: int, name: str) -> None:
    """A model has at least one tensor a layer: a huge count beyond that is damage, and would cost memory to build."""
    if isinstance(count, int | float) and count > max(tensors, 1000):
        raise ModelFileError(f"{name} names {count} layers but has {tensors} tensors; download it again.")


def _load_gguf(path: Path, ledger: Ledger, context: int | None) -> LoadedModel:
    file = read_gguf(path)
    architecture = str(file.need("general.architecture"))
    family = by_architecture(architecture)
    _check_layers(file.metadata.get(f"{architecture}.block_count"), len(file.tensors), path.name)
    spec = family.build(gguf_config(file, context))
    weights = canonical(spec, family.gguf, file.tensors, _ignored(_IGNORED_GGUF, spec, "output.weight"), path.name)
    tokenizer = Tokenizer.from_gguf(file)
    name = name_of(path) or file.name
    ledger.map_file(path.name, file.size)
    store = ResidentStore(weights, identity(file.paths, file.tensors))
    return _loaded(spec, store, tokenizer, name, path, file.tensors, file.size)


def _load_folder(path: Path, ledger: Ledger, context: int | None) -> LoadedModel:
    folder = read_folder(path)
    settings = _text_settings(folder)
    family = by_model_type(str(settings.get("model_type")))
    settings = {family.renamed.get(key, key): value for key, value in settings.items() if key not in _dropped(family)}
    where = f"{path.name}/config.json"
    _check_layers(settings.get("num_hidden_layers"), len(folder.tensors), where)
    spec = family.build(Config(settings, where, context=context))
    tensors = {unwrapped(name): tensor for name, tensor in folder.tensors.items()}
    weights = canonical(spec, family.hf, tensors, _ignored(_IGNORED_HF, spec, "lm_head.weight"), path.name)
    tokenizer = Tokenizer.from_folder(path, settings, folder.generation)
    for name, size in folder.files:
        ledger.map_file(name, size)
    size = sum(size for _, size in folder.files)
    name = name_of(path) or path.resolve().name
    store = ResidentStore(weights, identity([path / file for file, _ in folder.files], tensors))
    return _loaded(spec, store, tokenizer, name, path, tensors, size)


def _dropped(family: Any) -> set[str]:
    """Old spellings that a config repeats beside a renamed key's own (GPT-2's n_ctx)."""
    return {"n_ctx"} if family.renamed else set()


def _text_settings(folder: Folder) -> dict[str, Any]:
    """config.json, or its text part where the model also sees images."""
    text = folder.config.get("text_config")
    if not isinstance(text, dict):
        return folder.config
    shared = {key: folder.config[key] for key in ("tie_word_embeddings",) if key in folder.config}
    return {"model_type": folder.config.get("model_type")} | shared | text


def unwrapped(name: str) -> str:
    """A tensor's name without the classes around the decoder."""
    changed = True
    while changed:
        changed = False
        for wrapper in _WRAPPERS:
            if name.startswith(wrapper):
                name, changed = name.removeprefix(wrapper), True
    return name


def _ignored(pattern: str, spec: ModelSpec, head: str) -> str:
    """A tied or absent head's own copy in the file is not read."""
    return f"{pattern}|^{head}$" if spec.tied else pattern


def _loaded(
    spec: ModelSpec,
    store: ResidentStore,
    tokenizer: Tokenizer | None,
    name: str,
    path: Path,
    tensors: Mapping[str, Tensor],
    size: int,
) -> LoadedModel:
    if tokenizer is not None:
        spec = replace(spec, bos=tokenizer.bos, eos=tokenizer.eos)
    types = dict(Counter(tensor.kind for tensor in tensors.values()))
    return LoadedModel(replace(spec, name=name), store, tokenizer, name, path, types, size)
