"""A small image model as a flat list of operations over named buffers, whatever framework wrote it.

A buffer holds channels at places: [channels, height, width], [tokens, channels], or [channels] at no place. Batches
are not spoken of. Tensors are named as the module names them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

Function: TypeAlias = Literal["relu", "gelu", "silu", "tanh"]


@dataclass(frozen=True, slots=True)
class Linear:
    """x W^T + b along the channels; weight [out, in]."""

    out: str
    x: str
    weight: str
    bias: str | None = None


@dataclass(frozen=True, slots=True)
class Convolve:
    """weight [out, in, height, width]. `patch`: its windows neither overlap nor leave a gap, and nothing is padded."""

    out: str
    x: str
    weight: str
    bias: str | None = None
    patch: bool = False


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """(x - mean) / sqrt(variance + eps) * gain + bias, with the statistics of training; [channels] each."""

    out: str
    x: str
    gain: str
    bias: str
    mean: str
    variance: str
    eps: float


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """Over the channels of one place; not `centred` it is an RMS norm."""

    out: str
    x: str
    gain: str | None = None
    bias: str | None = None
    centred: bool = True


@dataclass(frozen=True, slots=True)
class Apply:
    """A function of each value."""

    out: str
    x: str
    function: Function


@dataclass(frozen=True, slots=True)
class Attend:
    """softmax(q k^T) v over all places, head by head; channels are the heads' side by side."""

    out: str
    q: str
    k: str
    v: str
    heads: int


@dataclass(frozen=True, slots=True)
class Add:
    out: str
    x: str
    y: str


@dataclass(frozen=True, slots=True)
class Offset:
    """Adds a table [..., tokens, channels], one row a place."""

    out: str
    x: str
    table: str


@dataclass(frozen=True, slots=True)
class Prepend:
    """A tensor [..., channels] as the new first place."""

    out: str
    x: str
    token: str


@dataclass(frozen=True, slots=True)
class Tokens:
    """The places of an image in a row, line by line."""

    out: str
    x: str


@dataclass(frozen=True, slots=True)
class Flatten:
    """[channels, height, width] as one row of channels, the places of a channel side by side."""

    out: str
    x: str


@dataclass(frozen=True, slots=True)
class Pool:
    """Mean or maximum of each channel, over all places or (not `whole`) over neighbours."""

    out: str
    x: str
    kind: Literal["mean", "max"]
    whole: bool


@dataclass(frozen=True, slots=True)
class Pick:
    """The channels of one place."""

    out: str
    x: str
    place: int


Operation: TypeAlias = (
    Linear | Convolve | BatchNorm | LayerNorm | Apply | Attend | Add | Offset | Prepend | Tokens | Flatten | Pool | Pick
)
_INPUTS: Mapping[type, tuple[str, ...]] = MappingProxyType({Attend: ("q", "k", "v"), Add: ("x", "y")})


def inputs(operation: Operation) -> tuple[str, ...]:
    """Names of the buffers that an operation reads."""
    return tuple(getattr(operation, name) for name in _INPUTS.get(type(operation), ("x",)))


@dataclass(frozen=True, slots=True)
class Graph:
    """`x`: buffer of the image; `image`: its channels, height, width; `out`: buffer of the answer, [classes]."""

    operations: tuple[Operation, ...]
    x: str
    out: str
    image: tuple[int, int, int]
