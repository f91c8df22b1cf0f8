"""Twins of every family, their veiled folders, and how the two are compared."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cryptography", reason="headrace[privacy] is not installed")
pytest.importorskip("pyrage", reason="headrace[privacy] is not installed")
pytest.importorskip("torch", reason="twins are made by transformers")

from headrace.backends.select import make_executor
from headrace.model.loading import LoadedModel, load_model
from headrace.privacy.veil.export import Export, export
from headrace.privacy.veil.keyfile import ClientKey
from headrace.privacy.veil.keys import Master
from headrace.privacy.veil.source import new_key, source_digest
from headrace.privacy.veil.tokens import TokenMap
from headrace.spec.executor import Executor, Limits
from headrace.spec.ledger import Ledger
from headrace.spec.options import EngineOptions
from model.pages import Runner
from model.twins import LENGTH, TWINS, Twin, make_tokens, make_twin

TOLERANCE = 1e-5
"""Largest relative error (Frobenius) of un-permuted logits in fp32."""
BY_NAME = {twin.name: twin for twin in TWINS}
EACH = LENGTH // 16 + 1


@dataclass(frozen=True, slots=True)
class Pair:
    """A twin's folder and its veiled one, both as loaded."""

    source: Path
    folder: Path
    key: ClientKey
    plain: LoadedModel
    veiled: LoadedModel

    @property
    def tokens(self) -> TokenMap:
        return TokenMap.of(self.key)


def fixed_key(source: Path, secret: int = 7) -> ClientKey:
    """A key whose secret is the same in every run."""
    return replace(new_key(source), master=Master(bytes([secret] * 32), source_digest(source)))


def make_pair(twin: Twin, folder: Path, **how: Any) -> Pair:
    source, target = folder / "plain", folder / "veiled"
    if not source.exists():
        make_twin(twin, source)
    return pair_of(source, target, twin.context, **how)


def pair_of(source: Path, target: Path, context: int | None = None, **how: Any) -> Pair:
    key = fixed_key(source)
    export(source, key, target, Export(**how))
    return Pair(source, target, key, load_model(source, Ledger(), context), load_model(target, Ledger(), context))


def executor(loaded: LoadedModel, backend: Any = "reference", **more: Any) -> Executor:
    if backend == "native":
        pytest.importorskip("headrace.backends.native._kernels", reason="the native kernels were not built")
    limits = Limits((3 * EACH,) * len(loaded.spec.state_groups()), 160, 160)
    options = EngineOptions(backend=backend, state_type="fp32", threads=1, **more)
    return make_executor(loaded.spec, loaded.weights, limits, Ledger(), options)


def texts(count: int = 3) -> list[list[int]]:
    return [make_tokens(seed)[0].tolist() for seed in range(3, 3 + count)]


def logits(loaded: LoadedModel, mode: str, backend: str, ids: Sequence[Sequence[int]], **more: Any) -> np.ndarray:
    """[all positions of all texts, vocab] in one way of running them."""
    runner = Runner(executor(loaded, backend, **more), loaded.spec, EACH)
    if mode == "packed":
        return np.concatenate(runner.run([(number, 0, text) for number, text in enumerate(ids)]))
    cuts = {"whole": [0, LENGTH], "cached": [0, 30, *range(31, LENGTH + 1)], "chunked": [0, 7, 23, 24, LENGTH]}[mode]
    spans = [(0, at, text[at:to]) for text in ids for at, to in itertools.pairwise(cuts)]
    return np.concatenate([runner.run([span])[0] for span in spans])


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def unveiled_difference(pair: Pair, mode: str = "whole", backend: str = "reference", **more: Any) -> float:
    """Relative error of the veiled model's logits, un-permuted, against the plain model's."""
    moved, ids = pair.tokens, texts()
    plain = logits(pair.plain, mode, backend, ids, **more)
    veiled = logits(pair.veiled, mode, backend, [moved.veiled(text) for text in ids], **more)
    return difference(veiled[:, moved.veiled(range(veiled.shape[1]))], plain)
