"""Rounds float weights to codes, or to bf16."""

from __future__ import annotations

import numpy as np

from headrace.backends.native.blocks import Codes

GROUP = 32
_REFINEMENTS = 3


def int8(values: np.ndarray) -> Codes:
    """[rows, inputs] float32 -> the codes of Q8_0: group of 32, d = greatest magnitude / 127 as float16."""
    groups = _groups(values)
    d = (np.abs(groups).max(axis=-1) / np.float32(127)).astype(np.float16)
    codes = np.clip(np.rint(groups * _inverse(d)[..., None]), -127, 127)
    return Codes((codes + np.float32(128)).astype(np.uint8).reshape(values.shape), d)


def int4(values: np.ndarray) -> Codes:
    """[rows, inputs] float32 -> 4-bit codes with a minimum, group of 32.

    Starts from the range of a group; then codes and the line d * code + m through the values are fitted to
    each other in turn (least squares), which never makes a group worse.
    """
    groups = _groups(values)
    m = groups.min(axis=-1)
    d = (groups.max(axis=-1) - m) / np.float32(15)
    for _ in range(_REFINEMENTS):
        d, m = _line(groups, _nearest(groups, d, m), d, m)
    d, m = d.astype(np.float16), m.astype(np.float16)
    return Codes(_nearest(groups, d, m).astype(np.uint8).reshape(values.shape), d, m)


def bf16(values: np.ndarray) -> np.ndarray:
    """float32 -> bf16 as uint16, to the nearest, ties to even; a NaN stays one."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + (bits >> 16 & 1))) >> 16
    return np.where(np.isnan(values), bits >> 16 | 0x40, rounded).astype(np.uint16)


def _groups(values: np.ndarray) -> np.ndarray:
    return values.reshape(values.shape[0], -1, GROUP)


def _inverse(d: np.ndarray) -> np.ndarray:
    wide = d.astype(np.float32)
    return np.divide(1, wide, out=np.zeros_like(wide), where=wide != 0)


def _nearest(groups: np.ndarray, d: np.ndarray, m: np.ndarray) -> np.ndarray:
    steps = (groups - m.astype(np.float32)[..., None]) * _inverse(d)[..., None]
    return np.clip(np.rint(steps), 0, 15)


def _line(groups: np.ndarray, codes: np.ndarray, d: np.ndarray, m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The (d, m) that bring d * codes + m closest to the values; the old ones where all codes are equal."""
    mean, code = groups.mean(axis=-1), codes.mean(axis=-1)
    apart = codes - code[..., None]
    spread = np.einsum("rgi,rgi->rg", apart, apart)
    slope = np.divide(np.einsum("rgi,rgi->rg", apart, groups), spread, out=d.copy(), where=spread > 0)
    return slope, np.where(spread > 0, mean - slope * code, m)
