"""Tables of cos and sin, one for each distinct Rope of a model; every backend reads the same numbers."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from headrace.spec.model import Rope
from headrace.spec.program import Operation, Rotate
from headrace.spec.rope import rope_amplitude, rope_frequencies


def distinct_ropes(operations: Iterable[Operation]) -> tuple[Rope, ...]:
    return tuple(dict.fromkeys(op.rope for op in operations if isinstance(op, Rotate)))


def table_bytes(ropes: Iterable[Rope], length: int) -> int:
    return sum(4 * length * rope.dim for rope in ropes)


def rope_table(rope: Rope, length: int) -> tuple[np.ndarray, np.ndarray]:
    """cos, sin [length, dim / 2] float32, computed in double precision."""
    positions = np.arange(length, dtype=np.float64)
    plain = np.asarray(rope_frequencies(rope, 0))
    angles = positions[:, None] * plain
    if rope.scaling == "dynamic":
        for position in range(rope.original, length):
            angles[position] = position * np.asarray(rope_frequencies(rope, position + 1))
    amplitude = rope_amplitude(rope)
    cos, sin = (np.cos(angles) * amplitude, np.sin(angles) * amplitude)
    return cos.astype(np.float32), sin.astype(np.float32)
