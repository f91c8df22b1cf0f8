"""Veils made by hand: a random permutation of ids and a random rotation, and texts with the statistics of language."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Keyed:
    """`truth` int [vocab]: the token of each id on the wire. `wire`: its inverse."""

    truth: np.ndarray
    rotation: np.ndarray

    @property
    def wire(self) -> np.ndarray:
        return np.argsort(self.truth)

    def table(self, table: np.ndarray, noise: float = 0.0, seed: int = 0) -> np.ndarray:
        """P (table + noise) Q, stored as bf16; `noise` is its Frobenius norm over that of the table."""
        moved = np.random.default_rng(seed).standard_normal(table.shape)
        moved *= noise * np.linalg.norm(table) / np.linalg.norm(moved)
        return bf16(((table + moved) @ self.rotation)[self.truth])


def key(vocab: int, dim: int, seed: int = 0) -> Keyed:
    rng = np.random.default_rng(seed)
    return Keyed(rng.permutation(vocab), orthogonal(rng, dim))


def orthogonal(rng: np.random.Generator, dim: int) -> np.ndarray:
    q, r = np.linalg.qr(rng.standard_normal((dim, dim)))
    return q * np.sign(np.diag(r))


def bf16(values: np.ndarray) -> np.ndarray:
    """Rounded to the nearest bf16, as float32."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return rounded.astype(np.uint32).view(np.float32)


def embedding(vocab: int, dim: int, seed: int = 1) -> np.ndarray:
    """Rows with a spectrum and skewed axes, as trained embeddings have: float32 [vocab, dim]."""
    rng = np.random.default_rng(seed)
    scale = np.linspace(3, 0.3, dim)
    return ((rng.gamma(2.0, size=(vocab, dim)) - 2) * scale @ orthogonal(rng, dim)).astype(np.float32)


def text(tokens: int, vocab: int, seed: int, language: int = 5) -> np.ndarray:
    """A walk over a sparse random graph with frequencies that fall as in language; `language` draws the graph."""
    rng, shape = np.random.default_rng(seed), np.random.default_rng(language)
    frequent = 1 / np.arange(1, vocab + 1) ** 0.9
    chances = frequent * shape.gamma(0.1, size=(vocab, vocab)) + 1e-9
    steps = np.cumsum(chances / chances.sum(axis=1, keepdims=True), axis=1)
    found, at = np.empty(tokens, np.int64), 0
    for place, draw in enumerate(rng.random(tokens)):
        at = min(int(np.searchsorted(steps[at], draw)), vocab - 1)
        found[place] = at
    return found
