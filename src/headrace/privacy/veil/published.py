"""The inverse of `model.naming`: canonical tensors under the names and layouts of a published checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from headrace.model.families import by_name
from headrace.model.naming import Names, Source, conv1d, shift, weight_shapes
from headrace.model.tensor import Tensor
from headrace.privacy.veil.errors import SymmetryError
from headrace.spec.model import ModelSpec

_OUTSIDE = {"gpt2": "transformer.", "bert": ""}
"""The class around the decoder, where it is not `model.`; heads stand outside of it."""


@dataclass(frozen=True, slots=True)
class Part:
    """A canonical tensor, or one expert's of it."""

    tensor: str
    expert: int | None = None


@dataclass(frozen=True, slots=True)
class FileTensor:
    """One tensor of a checkpoint: its parts on top of each other, turned and shifted as its family stores them."""

    name: str
    shape: tuple[int, ...]
    parts: tuple[Part, ...]
    transposed: bool = False
    shift: float = 0.0


def file_tensors(spec: ModelSpec) -> list[FileTensor]:
    """Every tensor of a model's published checkpoint, in the order of the program.

    Raises SymmetryError for a family that has no published layout.
    """
    names = by_name(spec.family).hf
    shapes = weight_shapes(spec)
    found: dict[str, FileTensor] = {}
    for tensor, shape in shapes.items():
        for piece in _stored(spec, names, tensor, shape):
            known = found.get(piece.name)
            found[piece.name] = piece if known is None else _joined(known, piece)
    return [_turned(tensor) for tensor in found.values()]


def _stored(spec: ModelSpec, names: Names, tensor: str, shape: tuple[int, ...]) -> Iterator[FileTensor]:
    stem, _, ending = tensor.rpartition(".")
    layer = int(tensor.split(".")[1]) if tensor.startswith("layers.") else 0
    source = Source(_Asked(shape), spec, layer)
    template = tensor.replace(f"layers.{layer}.", "layers.N.", 1)
    rule = names.get(template)
    if rule is None:
        rule, source.suffix = names.get(template.rpartition(".")[0]), f".{ending}"
    if rule is None:
        raise SymmetryError(f"{spec.family} has no published name for {stem}; veil a model of another family.")
    if callable(rule):
        asked = _Asked(shape[1:])
        rule(Source(asked, spec, layer))
        for expert, name in enumerate(asked.names):
            yield FileTensor(_prefixed(spec, name), shape[1:], (Part(tensor, expert),))
        return
    first, *steps = (rule,) if isinstance(rule, str) else rule
    assert isinstance(first, str)
    name = _prefixed(spec, source.name(first))
    turned = conv1d in steps and len(shape) == 2
    yield FileTensor(name, shape, (Part(tensor),), turned, -1.0 if shift in steps else 0.0)


class _Asked(Mapping[str, Tensor]):
    """Has every tensor that is asked for, and remembers the names in order."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.names: list[str] = []
        self._shape = shape

    def __contains__(self, name: object) -> bool:
        return True

    def __getitem__(self, name: str) -> Tensor:
        self.names.append(name)
        return Tensor(name, self._shape, "f32", _never)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _never() -> np.ndarray:
    raise AssertionError("only names are asked for")


def _prefixed(spec: ModelSpec, name: str) -> str:
    return name if name.startswith("lm_head.") else _OUTSIDE.get(spec.family, "model.") + name


def _joined(first: FileTensor, second: FileTensor) -> FileTensor:
    """Fused projections: rows of the second behind those of the first."""
    shape = (first.shape[0] + second.shape[0], *first.shape[1:])
    return FileTensor(first.name, shape, first.parts + second.parts, first.transposed, first.shift)


def _turned(tensor: FileTensor) -> FileTensor:
    shape = tensor.shape[::-1] if tensor.transposed else tensor.shape
    return FileTensor(tensor.name, shape, tensor.parts, tensor.transposed, tensor.shift)
