"""What an attack reads of a model that lies there: the tables of a folder or GGUF file, public or deployed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from headrace.model.loading import load_model
from headrace.spec.errors import UnsupportedModel
from headrace.spec.ledger import Ledger
from headrace.spec.program import compile_program

EMBEDDING, HEAD, GAIN = "embed.weight", "head.weight", "norm.weight"


def embedding(folder: Path) -> np.ndarray:
    """The embedding, float32 [vocab, d]. Raises ModelFileError, UnsupportedModel."""
    return _tables(folder)[EMBEDDING]


def head(folder: Path) -> np.ndarray:
    """The output head with the gain of the norm before it folded in, float32 [vocab, d].

    Raises ModelFileError, and UnsupportedModel for an encoder, which has none.
    """
    found = _tables(folder)
    table = found.get(HEAD, found[EMBEDDING])
    return table * found[GAIN] if GAIN in found else table


def _tables(folder: Path) -> dict[str, np.ndarray]:
    loaded = load_model(folder, Ledger())
    if not loaded.spec.causal:
        raise UnsupportedModel(f"{loaded.name} is an encoder, which names no tokens; attack a model that writes text.")
    held = loaded.weights.lease(compile_program(loaded.spec).operations)
    return {name: held[name].numpy() for name in (EMBEDDING, HEAD, GAIN) if name in held}
