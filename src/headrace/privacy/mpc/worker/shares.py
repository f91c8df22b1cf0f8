"""SPU's shares as bytes: how they travel to a party, what a party sees of them, and how a leak would look."""

from __future__ import annotations

from typing import Any

import numpy as np
from spu import libspu

from headrace.privacy.mpc.approximations import FRACTION_BITS

TOTAL_BYTES = 0x08
"""The first field of SPU's chunk: how many bytes of content a value has."""


def packed(share: Any) -> dict[str, np.ndarray]:
    """A share as arrays that `wire` can send."""
    chunks = {f"chunk{i}": np.frombuffer(chunk, np.uint8) for i, chunk in enumerate(share.share_chunks)}
    return {"meta": np.frombuffer(share.meta, np.uint8)} | chunks


def unpacked(arrays: dict[str, np.ndarray]) -> Any:
    share = libspu.Share()
    share.meta = arrays["meta"].tobytes()
    share.share_chunks = [arrays[f"chunk{i}"].tobytes() for i in range(len(arrays) - 1)]
    return share


def content(share: Any) -> bytes:
    """The ring elements of a share of one chunk, without what describes them."""
    return share.share_chunks[0][-_total(share.share_chunks[0]) :]


def _total(chunk: bytes) -> int:
    if chunk[0] != TOTAL_BYTES:
        raise ValueError(f"a chunk that begins with {chunk[0]:#x} is none of this version of SPU")
    found = 0
    for place, byte in enumerate(chunk[1:10]):
        found |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            break
    return found


def laid_open(shares: list[Any], array: np.ndarray) -> list[Any]:
    """A mutant's shares: the number itself in the first one and zeros in all others. They compute the same."""
    ring = np.rint(array.astype(np.float64) * 2**FRACTION_BITS).astype(np.int64).reshape(-1)
    zero = np.zeros_like(ring)
    if len(shares) == 2:
        held = [ring, zero]
    else:
        held = [np.stack(pair, axis=-1) for pair in ((ring, zero), (zero, zero), (zero, ring))]
    for share, ours in zip(shares, held, strict=True):
        chunk = share.share_chunks[0]
        share.share_chunks = [chunk[: -_total(chunk)] + ours.tobytes()]
    return shares
