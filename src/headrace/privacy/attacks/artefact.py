"""A model's folder or file as an attacker reads it: public weights, or what `veil export` wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from headrace.model.folder import read_json
from headrace.model.loading import load_model
from headrace.model.tensor import Tensor
from headrace.model.tokenizer import Tokenizer
from headrace.spec.errors import UnsupportedModel
from headrace.spec.ledger import Ledger
from headrace.spec.model import ModelSpec
from headrace.spec.program import compile_program


class Opened:
    """An opened model. Tables are float32 and are decoded when they are asked for."""

    def __init__(self, path: Path) -> None:
        """Raises ModelFileError, UnsupportedModel."""
        self.path, self.loaded = path, load_model(path, Ledger())
        self.tensors: dict[str, Tensor] = dict(self.loaded.weights.lease(compile_program(self.spec).operations))

    @property
    def spec(self) -> ModelSpec:
        return self.loaded.spec

    @property
    def name(self) -> str:
        return self.loaded.name

    @property
    def tokenizer(self) -> Tokenizer:
        """Raises UnsupportedModel for a model without one, as every veiled folder is."""
        if self.loaded.tokenizer is None:
            raise UnsupportedModel(
                f"{self.name} has no tokenizer for text; give ids (.npy, .ids), or a model with one."
            )
        return self.loaded.tokenizer

    def embedding(self) -> np.ndarray:
        """[vocab, hidden]."""
        return self.tensors["embed.weight"].numpy()

    def head(self) -> np.ndarray | None:
        """[vocab, hidden] with the last norm's gain folded in; None for an encoder, which has none."""
        if not self.spec.causal:
            return None
        table = self.tensors["embed.weight" if self.spec.tied else "head.weight"].numpy()
        return table * self.tensors["norm.weight"].numpy() if self.spec.final_norm else table

    def layer(self, number: int) -> dict[str, np.ndarray]:
        """The weights of one layer by their canonical names, [out, in]."""
        start = f"layers.{number}."
        return {name: tensor.numpy() for name, tensor in self.tensors.items() if name.startswith(start)}

    def first_id(self) -> int | None:
        """The id that texts begin with, where the model's settings name one."""
        if self.spec.bos is not None:
            return self.spec.bos
        settings = self.path / "config.json"
        return read_json(settings).get("bos_token_id") if settings.is_file() else None


def embedding(folder: Path) -> np.ndarray:
    """The embedding of a model that writes text, float32 [vocab, d]. Raises ModelFileError, UnsupportedModel."""
    return _writer(folder).embedding()


def head(folder: Path) -> np.ndarray:
    """Its output head with the gain of the norm before it folded in, float32 [vocab, d]. Raises as `embedding`."""
    found = _writer(folder).head()
    assert found is not None, "what writes text has a head"
    return found


def _writer(folder: Path) -> Opened:
    model = Opened(folder)
    if not model.spec.causal:
        raise UnsupportedModel(f"{model.name} is an encoder, which names no tokens; attack a model that writes text.")
    return model
