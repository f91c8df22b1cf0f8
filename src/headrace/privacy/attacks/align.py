"""Align: with the public weights, a veiled embedding tells its token map and the rotation of the residual stream.

The veil stores E' = P E Q for a secret permutation P and a secret orthogonal Q. Neither changes what the rows are
relative to each other, so E' is matched to the public E by its moments or by invariants of single tokens, and
orthogonal Procrustes (Schönemann 1966) on the matches gives Q. Of LoRA and most fine-tuning E hardly moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from headrace.privacy.attacks.nearest import Nearest, nearest
from headrace.spec.errors import InvalidRequest

COMPONENTS = 32
COARSE = 192
GROWING, DONE = 1.05, 0.99
"""Rounds end when mutual matches grow by less than a twentieth, or when this share of all rows has one."""
EARLY = 3
"""In the first rounds false matches make way for true ones, so their number may well fall."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """`token_map` int [n]: the public row of each deployed row. deployed ~ public[token_map] @ rotation.

    `rotation` float64 [d, d], orthogonal. `matched`: how many rows were mutual neighbours in each round.
    """

    token_map: np.ndarray
    rotation: np.ndarray
    matched: tuple[int, ...]


def align(
    public: np.ndarray,
    deployed: np.ndarray,
    heads: tuple[np.ndarray, np.ndarray] | None = None,
    rounds: int = 5,
    components: int = COMPONENTS,
) -> Alignment:
    """The token map and rotation between two embeddings, float [vocab, d] each.

    It starts from the tables' moments, or, with `heads` (public and deployed output head, norm gain folded in,
    [vocab, d] each), from three invariants of single tokens; then Procrustes and matching up to `rounds` times.
    Raises InvalidRequest for tables of different shape.
    """
    if public.shape != deployed.shape or public.ndim != 2:
        raise InvalidRequest(f"Tables of {public.shape} and {deployed.shape} cannot be aligned; give two of one model.")
    if heads is None:
        found = by_moments(public, deployed, components)
    else:
        found = by_invariants((public, heads[0]), (deployed, heads[1]))
    return refine(public, deployed, found, rounds)


def refine(public: np.ndarray, deployed: np.ndarray, found: Nearest, rounds: int) -> Alignment:
    """From some matches to all: Procrustes on the mutual ones and matching anew along the public table's first axes.

    It ends once matches hardly grow; rows without a mutual neighbour by then are matched in all dimensions.
    """
    shift = deployed.mean(axis=0, dtype=np.float64)
    public, deployed = public - public.mean(axis=0, dtype=np.float64), deployed - shift
    axes = principal(public, COARSE)[0] if rounds else np.empty((public.shape[1], 0))
    matched = [0, int(found.mutual.sum())]
    while len(matched) < rounds + 2 and matched[-1] < DONE * len(public):
        if len(matched) > EARLY and matched[-1] < GROWING * matched[-2]:
            break
        found = nearest(deployed @ (_rotation(public, deployed, found).T @ axes), public @ axes)
        matched.append(int(found.mutual.sum()))
    rotation, token_map = _rotation(public, deployed, found), found.of_rows.copy()
    token_map[~found.mutual] = nearest(deployed[~found.mutual] @ rotation.T, public).of_rows
    return Alignment(token_map, rotation, tuple(matched[1:]))


def _rotation(public: np.ndarray, deployed: np.ndarray, found: Nearest) -> np.ndarray:
    return procrustes(public[found.of_rows[found.mutual]], deployed[found.mutual])


def procrustes(source: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The orthogonal [d, d] that takes the rows of `source` nearest to those of `image`, [n, d] each."""
    crossed = source.T.astype(np.float64) @ image.astype(np.float64)
    left, _, right = np.linalg.svd(crossed)
    return left @ right


def principal(table: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first principal axes, float64 [d, count], and the centred rows along them, float32 [n, count]."""
    centred = table - table.mean(axis=0, dtype=np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :count]
    return axes, (centred @ axes).astype(np.float32)


def by_moments(public: np.ndarray, deployed: np.ndarray, components: int = COMPONENTS) -> Nearest:
    """Matches along the principal axes, whose signs the third moments fix; noise of equal variance leaves them be."""
    tables = []
    for table in (deployed, public):
        _, along = principal(table, components)
        skew = np.einsum("nk,nk,nk->k", along, along, along, dtype=np.float64)
        tables.append(along * np.where(skew < 0, -1, 1).astype(np.float32))
    return nearest(*tables)


def invariants(embedding: np.ndarray, head: np.ndarray) -> np.ndarray:
    """|e|, |h| and e.h of each token, [vocab, 3]: no permutation of ids and no rotation changes them."""
    pairs: Sequence[tuple[np.ndarray, np.ndarray]] = ((embedding, embedding), (head, head), (embedding, head))
    squares = np.stack([np.einsum("vd,vd->v", one, other, dtype=np.float64) for one, other in pairs], axis=1)
    squares[:, :2] = np.sqrt(squares[:, :2])
    return squares


def by_invariants(public: tuple[np.ndarray, np.ndarray], deployed: tuple[np.ndarray, np.ndarray]) -> Nearest:
    """Matches by the three invariants of (embedding, head), each scaled to its spread in the public model."""
    known, seen = invariants(*public), invariants(*deployed)
    spread = known.std(axis=0) + 1e-30
    forward = KDTree(known / spread).query(seen / spread)[1]
    backward = KDTree(seen / spread).query(known / spread)[1]
    return Nearest(forward, backward[forward] == np.arange(len(seen)))
