"""The veil of a plain module: its tensors as named arrays in a keyed basis, and the client that encodes its images.

The veiled arrays go into the very module they came from. An image whose first operation is an overlapping
convolution is sent as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import numpy as np

from headrace.privacy.veil.basis import Basis
from headrace.privacy.veil.errors import SymmetryError
from headrace.privacy.veil.frames import CONDITION, check_condition, head_frames, stream_basis
from headrace.privacy.veil.keys import MODEL, Keystream, Master
from headrace.privacy.veil.modules import CLASSES, PATCHES, PIXELS, Axis, ModulePlan, plan_module
from headrace.privacy.veil.rules import Group, Step, Stream
from headrace.privacy.veil.transform import by_gain
from headrace.spec.graph import Graph


def arrays_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Hex SHA-256 of named arrays as float32, for the name of a key."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].shape} ".encode())
        digest.update(np.ascontiguousarray(arrays[name], "<f4").tobytes())
    return digest.hexdigest()


class ModuleFrames:
    """Frame name -> Basis, drawn once each."""

    def __init__(self, plan: ModulePlan, master: Master, condition: float = CONDITION) -> None:
        check_condition(condition)
        self.plan, self.master, self.condition = plan, master, condition
        self._drawn: dict[str, Basis] = {}

    def __getitem__(self, name: str) -> Basis:
        if name not in self._drawn:
            self._drawn |= self._draw(name)
        return self._drawn[name]

    def _draw(self, name: str) -> dict[str, Basis]:
        base, _, leading = name.partition("+")
        if leading:
            fixed = int(leading)
            order = np.concatenate([np.arange(fixed), fixed + self[base].order])
            return {name: Basis.permutation(order)}
        attention = name.rpartition(".")[0]
        if attention in self.plan.heads:
            heads, draws = self.plan.heads[attention], partial(self.master.stream, attention)
            found = head_frames(heads, draws, self.condition)
            return {f"{attention}.{part}": basis for part, basis in found.items()}
        return {name: axis_basis(self.plan.axes[name], self.master.stream(MODEL, name), self.condition)}


def axis_basis(axis: Axis, draws: Keystream, condition: float) -> Basis:
    """The basis of one frame's channels."""
    if axis.group == "general":
        return Basis.of(draws.general(axis.size, condition)[None])
    if axis.group == "scaled":
        return Basis.of(draws.scales(axis.size, condition), draws.permutation(axis.size))
    return stream_basis(Stream(axis.group, axis.size), draws)


class ModuleVeil:
    """`recipe` finds what can be keyed, `apply` keys it. `guarantee`: the same function up to rounding."""

    guarantee: Literal["equal"] = "equal"

    def __init__(self, plan: ModulePlan, master: Master, condition: float = CONDITION) -> None:
        self.plan, self.frames = plan, ModuleFrames(plan, master, condition)

    @staticmethod
    def recipe(graph: Graph, arrays: Mapping[str, np.ndarray], asked: Mapping[str, Group] | None = None) -> ModulePlan:
        """The largest exact veil. Raises SymmetryError (see `plan_module`), for an unknown tensor too."""
        plan = plan_module(graph, {name: values.shape for name, values in arrays.items()}, asked)
        plan.check(arrays)
        return plan

    def apply(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Tensor name -> veiled float32 array of the same shape, computed in float64.

        Raises SymmetryError for a tensor that the plan does not know, or lacks, and for a gain of 0 before a bias.
        """
        self.plan.check(arrays)
        sources = fold_batch_norms(self.plan, arrays)
        return {name: self._changed(name, sources).astype(np.float32) for name in arrays}

    def client(self) -> ImageClient:
        return ImageClient(self.plan, self.frames)

    def _changed(self, name: str, sources: Mapping[str, np.ndarray]) -> np.ndarray:
        values = sources[name]
        for step in self.plan.rules[name].steps:
            values = self._step(step, values, sources)
        return values

    def _step(self, step: Step, values: np.ndarray, sources: Mapping[str, np.ndarray]) -> np.ndarray:
        if step.kind == "one":
            return np.ones_like(values)
        if step.kind in ("push", "pull"):
            basis, axis = self.frames[step.name], step.axis % values.ndim
            # A frame has one value for all places of a channel, or takes in the axes of a patch.
            cut = values.reshape(*values.shape[:axis], basis.size, -1)
            return (basis.push if step.kind == "push" else basis.pull)(cut, axis).reshape(values.shape)
        return by_gain(step, values, sources[step.name])


def fold_batch_norms(plan: ModulePlan, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same module in float64 with every batch norm that can be folded left as a shift."""
    found = {name: values.astype(np.float64) for name, values in arrays.items()}
    for folded in plan.folded:
        norm, weight = folded.norm, found[folded.weight]
        factor = found[norm.gain] / np.sqrt(found[norm.variance] + norm.eps)
        found[folded.weight] = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
        shift = found[norm.bias] - found[norm.mean] * factor
        if folded.bias is not None:
            shift = shift + found[folded.bias] * factor
            found[folded.bias] = np.zeros_like(shift)
        found |= {norm.bias: shift, norm.gain: np.ones_like(shift), norm.mean: np.zeros_like(shift)}
        found[norm.variance] = np.full_like(shift, 1.0 - norm.eps)
    return found


class ImageClient:
    """Encodes images for a veiled module and reads its answers; pixels, patches and classes are all it draws."""

    def __init__(self, plan: ModulePlan, frames: ModuleFrames) -> None:
        self.plan, self.frames = plan, frames

    @property
    def hidden(self) -> bool:
        """Whether images are encoded at all; else the server sees them."""
        axes = self.plan.axes
        return any(axes[name].group != "identity" for name in (PIXELS, PATCHES) if name in axes)

    def images(self, images: np.ndarray) -> np.ndarray:
        """float [n, channels, height, width] -> float32 of the same shape. Raises SymmetryError for another shape."""
        if images.shape[1:] != self.plan.image:
            raise SymmetryError(f"Images of {images.shape[1:]} are not {self.plan.image}; resize them.")
        if self.plan.patch is None:
            return images.astype(np.float32)
        patches = self.frames[PIXELS].push(cut(images.astype(np.float64), self.plan.patch))
        if PATCHES in self.plan.axes:
            patches = self.frames[PATCHES].push(patches, -2)
        return joined(patches, self.plan.image, self.plan.patch).astype(np.float32)

    def logits(self, veiled: np.ndarray) -> np.ndarray:
        """[n, classes] in the classes' own order."""
        return self.frames[CLASSES].undo(veiled)

    def labels(self, veiled: Sequence[int]) -> list[int]:
        """The classes that the server's numbers stand for."""
        return self.frames[CLASSES].order[np.asarray(veiled, np.int64)].tolist()


def cut(images: np.ndarray, patch: tuple[int, int]) -> np.ndarray:
    """[n, channels, height, width] -> [n, patches, channels * patch height * patch width]."""
    count, channels, height, width = images.shape
    rows, columns = height // patch[0], width // patch[1]
    blocks = images.reshape(count, channels, rows, patch[0], columns, patch[1]).transpose(0, 2, 4, 1, 3, 5)
    return blocks.reshape(count, rows * columns, -1)


def joined(patches: np.ndarray, image: tuple[int, int, int], patch: tuple[int, int]) -> np.ndarray:
    """What `cut` was given: [n, *image]."""
    rows, columns = image[1] // patch[0], image[2] // patch[1]
    blocks = patches.reshape(len(patches), rows, columns, image[0], *patch).transpose(0, 3, 1, 4, 2, 5)
    return blocks.reshape(len(patches), *image)
