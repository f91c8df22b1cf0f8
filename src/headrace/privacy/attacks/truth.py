"""What is true of a veiled model, from its owner's key: by it, and by nothing else, an attack is scored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from headrace.privacy.veil.artefact import read_manifest
from headrace.privacy.veil.errors import ArtefactError
from headrace.privacy.veil.frames import CONDITION, Frames
from headrace.privacy.veil.keyfile import ClientKey
from headrace.privacy.veil.planner import plan_veil
from headrace.privacy.veil.tokens import TokenMap
from headrace.spec.model import ModelSpec


@dataclass(frozen=True)
class Truth:
    """`token_map` int [vocab]: the source's id of each id on the wire. `frames`: the keyed bases of all buffers."""

    token_map: np.ndarray
    frames: Frames

    @classmethod
    def of(cls, key: ClientKey, spec: ModelSpec, condition: float = CONDITION) -> Truth:
        """`spec`: of the plain or of the veiled model."""
        frames = Frames(plan_veil(replace(spec, tied=False)), key.master, condition)
        return cls(frames.tokens(), frames)

    @property
    def rotation(self) -> np.ndarray:
        """float64 [hidden, hidden]: deployed rows are public rows times this."""
        stream = self.frames["stream"]
        return stream.push(np.eye(stream.size))

    def heads(self, layer: int) -> np.ndarray:
        """int [key heads]: the public key head that stands in the place of each."""
        return self.frames[f"layers.{layer}.v"].order

    def units(self, layer: int) -> np.ndarray:
        """int [units]: the public hidden unit that stands in the place of each."""
        return self.frames[f"layers.{layer}.mlp.gate"].order


def truth_of(folder: Path, key: ClientKey, spec: ModelSpec) -> Truth:
    """What is true of an exported folder. Raises ArtefactError where the key is another one's."""
    manifest = read_manifest(folder)
    if (manifest.key_id, manifest.epoch) != (key.master.key_id(), key.master.epoch):
        raise ArtefactError(
            f"{folder} was veiled with another key or epoch; score it by the key that it was made with."
        )
    return Truth.of(key, spec, manifest.condition)


def token_map(key: ClientKey) -> np.ndarray:
    """int [vocab]: the source's id of each id on the wire, from the key alone."""
    return np.array(TokenMap.of(key).plain(range(key.vocab)))
