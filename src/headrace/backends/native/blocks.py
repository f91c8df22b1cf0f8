"""ggml's quantised blocks, taken apart into codes and scales without rounding anything.

Layouts as in ggml's `ggml-common.h`; what stands here decodes to the same bits as `gguf.quants`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Codes:
    """Rows of quantised weights: value = d * (code - offset), or d * code + m.

    `codes` [rows, inputs] uint8; `d` and `m` [rows, groups], float16 or float32; `m` is None without minima.
    """

    codes: np.ndarray
    d: np.ndarray
    m: np.ndarray | None = None


_FIELDS: dict[str, list[tuple]] = {
    "Q4_0": [("d", "<f2"), ("low", "u1", 16)],
    "Q4_1": [("d", "<f2"), ("m", "<f2"), ("low", "u1", 16)],
    "Q5_0": [("d", "<f2"), ("high", "u1", 4), ("low", "u1", 16)],
    "Q5_1": [("d", "<f2"), ("m", "<f2"), ("high", "u1", 4), ("low", "u1", 16)],
    "Q8_0": [("d", "<f2"), ("codes", "u1", 32)],
    "Q4_K": [("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", (3, 4)), ("low", "u1", 128)],
    "Q5_K": [("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", (3, 4)), ("high", "u1", 32), ("low", "u1", 128)],
    "Q6_K": [("low", "u1", 128), ("high", "u1", 64), ("scales", "i1", 16), ("d", "<f2")],
}
_BLOCKS = {kind: np.dtype(fields) for kind, fields in _FIELDS.items()}


def unpack(stored: np.ndarray, kind: str) -> Codes:
    """Rows of one of the eight kinds above, [rows, bytes of a row], as codes. KeyError for another kind."""
    blocks = np.ascontiguousarray(stored).view(_BLOCKS[kind])
    return _READERS[kind](blocks)


def _rows(array: np.ndarray) -> np.ndarray:
    return array.reshape(array.shape[0], -1)


def _bits(packed: np.ndarray, run: int, width: int) -> np.ndarray:
    """[rows, blocks, bytes] -> [rows, values]: of `run` bytes first every lowest `width` bits, then the next ones."""
    shifts = np.arange(0, 8, width, dtype=np.uint8)[:, None]
    parts = packed.reshape(*packed.shape[:2], -1, 1, run) >> shifts
    return _rows(parts & np.uint8((1 << width) - 1))


def _block32(blocks: np.ndarray) -> Codes:
    codes = _bits(blocks["low"], 16, 4)
    if "high" in (blocks.dtype.names or ()):
        codes |= _rows(np.unpackbits(blocks["high"], axis=-1, bitorder="little")) << np.uint8(4)
    return Codes(codes, blocks["d"], blocks["m"] if "m" in (blocks.dtype.names or ()) else None)


def _q8_0(blocks: np.ndarray) -> Codes:
    return Codes(_rows(blocks["codes"] ^ np.uint8(128)), blocks["d"])


def _k_with_minima(blocks: np.ndarray) -> Codes:
    codes = _bits(blocks["low"], 32, 4)
    if "high" in (blocks.dtype.names or ()):
        codes |= _bits(blocks["high"], 32, 1) << np.uint8(4)
    first, second, third = (blocks["scales"][..., i, :] for i in range(3))
    scales = np.concatenate([first & 0x3F, third & 0x0F | first >> 2 & 0x30], axis=-1)
    minima = np.concatenate([second & 0x3F, third >> 4 | second >> 2 & 0x30], axis=-1)
    d, dmin = blocks["d"].astype(np.float32)[..., None], blocks["dmin"].astype(np.float32)[..., None]
    return Codes(codes, _rows(d * scales.astype(np.float32)), _rows(-(dmin * minima.astype(np.float32))))


def _q6_k(blocks: np.ndarray) -> Codes:
    codes = _bits(blocks["low"], 64, 4) | _bits(blocks["high"], 32, 2) << np.uint8(4)
    d = blocks["d"].astype(np.float32)[..., None]
    return Codes(codes, _rows(d * blocks["scales"].astype(np.float32)))


_READERS: dict[str, Callable[[np.ndarray], Codes]] = {
    "Q4_0": _block32,
    "Q4_1": _block32,
    "Q5_0": _block32,
    "Q5_1": _block32,
    "Q8_0": _q8_0,
    "Q4_K": _k_with_minima,
    "Q5_K": _k_with_minima,
    "Q6_K": _q6_k,
}
