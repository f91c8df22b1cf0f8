"""The attacks of veil_attacks.py that need a whole veiled model: what `veil export` writes of the real one.

The folder is made once by a fixed key and kept in the user's cache; no attack sees the key.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headrace.engine.engine import Engine
from headrace.evidence.veiled import KNOWN, key_of
from headrace.model.catalogue import cache_folder
from headrace.privacy.attacks.artefact import Opened
from headrace.privacy.attacks.on_states import cached_keys, hidden_states
from headrace.privacy.attacks.on_weights import align_folder
from headrace.privacy.attacks.oracle import oracle
from headrace.privacy.attacks.recovery import Recovery
from headrace.privacy.attacks.truth import Truth, truth_of
from headrace.privacy.veil.artefact import verify
from headrace.privacy.veil.errors import ArtefactError
from headrace.privacy.veil.export import Export, export
from headrace.spec.options import EngineOptions


class Deployment(NamedTuple):
    public: Opened
    deployed: Opened
    truth: Truth


@cache
def deployment(source: Path, dtype: str) -> Deployment:
    """The veiled folder of a model, exported where it is not yet in the cache or not whole."""
    key = key_of(source, KNOWN)
    folder = cache_folder() / "privacy" / f"veiled-{dtype}-{key.master.model[:16]}"
    try:
        verify(folder, key)
    except ArtefactError:
        shutil.rmtree(folder, ignore_errors=True)
        export(source, key, folder, Export(dtype))
    deployed = Opened(folder)
    return Deployment(Opened(source), deployed, truth_of(folder, key, deployed.spec))


def attack_deployed(
    source: Path, texts: np.ndarray, known: np.ndarray, attack: str, setting: Mapping[str, Any], run: int
) -> Recovery:
    """`texts`: the victim's tokens, of which a passage is served; `known`: the attacker's own. int [tokens] each."""
    public, deployed, truth = deployment(source, setting["dtype"])
    if attack == "align-artefact":
        return align_folder(public, deployed, truth)
    if attack == "oracle":
        with closing(Engine.load(deployed.path, EngineOptions())) as engine:
            return oracle(engine, known, setting["written"], deployed.first_id(), truth.token_map, seed=run)
    count = setting["positions"]
    start = np.random.default_rng([run, 3]).integers(len(texts) - count + 1)
    passage = texts[start : start + count]
    wire = np.argsort(truth.token_map)[passage]
    if attack == "kv":
        return cached_keys(public, deployed, wire, truth.token_map)
    told = passage[: setting["told"]].tolist()
    return hidden_states(public, deployed, wire, setting["layer"], told, truth.token_map)
