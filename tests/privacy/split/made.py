"""Tiny random models cut in two, and the same models whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest

pytest.importorskip("torch", reason="the split runs on the reference backend")

from backends.twins import MODELS, RandomStore
from headrace.privacy.split.blocks import Blocks
from headrace.privacy.split.client import SplitModel
from headrace.privacy.split.cut import Cut
from headrace.privacy.split.noise import Noise
from headrace.privacy.split.piece import Piece
from headrace.privacy.split.service import create_app
from headrace.spec.model import ModelSpec
from server.twin import on_loopback

NAMES = (
    "grouped-query", "tied, biases", "windows", "soft-caps", "norms on both sides", "dynamic rotary",
    "learned positions", "unequal layers", "experts",
)  # fmt: skip
CONTEXT = 96


def made(name: str) -> tuple[ModelSpec, RandomStore]:
    return MODELS[name], RandomStore(MODELS[name])


@contextmanager
def split(spec: ModelSpec, store: RandomStore, depth: int, noise: Noise | None = None) -> Iterator[SplitModel]:
    """Both sides in this process."""
    blocks = Blocks(spec, store, depth, slots=2, context=CONTEXT, threads=1)
    model = SplitModel(spec, store, depth, blocks, noise, CONTEXT, threads=1)
    yield model
    model.close()
    blocks.close()


def whole(spec: ModelSpec, store: RandomStore) -> Piece:
    return Piece(Cut(spec, store), context=CONTEXT, threads=1, logits=64, rows=64)


def plain_logits(spec: ModelSpec, store: RandomStore, tokens: Sequence[int]) -> np.ndarray:
    piece = whole(spec, store)
    found = piece.logits(0, 0, tokens)
    piece.close()
    return found


@contextmanager
def served(blocks: Blocks, name: str = "twin") -> Iterator[str]:
    """The blocks behind a real server on the loopback; its URL."""
    with on_loopback(create_app(blocks, name)) as url:
        yield url
