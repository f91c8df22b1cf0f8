"""A keyed change of basis of one buffer: rows x become x T, with T of equal diagonal blocks in a keyed order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Basis:
    """T: block j of x T is block `order[j]` of x times `blocks[order[j]]`.

    `blocks` [n, b, b] float64; `duals`: their inverse transposes, which map the weights that read the buffer.
    b = 1 is a permutation with factors, n = 1 a dense matrix.
    """

    blocks: np.ndarray
    duals: np.ndarray
    order: np.ndarray

    @classmethod
    def of(cls, blocks: np.ndarray, order: np.ndarray | None = None) -> Basis:
        """From invertible blocks [n, b, b], or factors [n]."""
        if blocks.ndim == 1:
            blocks = blocks[:, None, None]
        duals = 1.0 / blocks if blocks.shape[-1] == 1 else np.linalg.inv(blocks).swapaxes(-1, -2)
        return cls(blocks, duals, np.arange(len(blocks)) if order is None else order)

    @classmethod
    def orthogonal(cls, matrix: np.ndarray) -> Basis:
        """From one orthogonal matrix [b, b], which is its own dual."""
        return cls(matrix[None], matrix[None], np.zeros(1, np.int64))

    @classmethod
    def permutation(cls, order: np.ndarray) -> Basis:
        return cls.of(np.ones(len(order)), order)

    @property
    def size(self) -> int:
        return self.blocks.shape[0] * self.blocks.shape[1]

    def push(self, values: np.ndarray, axis: int = -1) -> np.ndarray:
        """values T along an axis: what the buffer holds, and the outputs of weights that write it."""
        return self._apply(self.blocks, values, axis)

    def pull(self, values: np.ndarray, axis: int = -1) -> np.ndarray:
        """values T^-T along an axis: the inputs of weights that read the buffer."""
        return self._apply(self.duals, values, axis)

    def undo(self, values: np.ndarray, axis: int = -1) -> np.ndarray:
        """values T^-1 along an axis: from the keyed basis back."""
        back = np.argsort(self.order)
        inverse = self.duals.swapaxes(-1, -2)[self.order]
        return Basis(inverse, inverse, back).push(values, axis)

    def _apply(self, blocks: np.ndarray, values: np.ndarray, axis: int) -> np.ndarray:
        count, width = blocks.shape[:2]
        moved = np.moveaxis(values, axis, -1)
        cut = moved.reshape(*moved.shape[:-1], count, width)
        if width == 1:
            done = (cut * blocks[:, 0])[..., self.order, :]
        elif count == 1:
            done = cut @ blocks[0]
        else:
            done = np.moveaxis(np.moveaxis(cut, -2, 0).reshape(count, -1, width) @ blocks, 0, 1)
            done = done[:, self.order].reshape(cut.shape)
        return np.moveaxis(done.reshape(moved.shape), -1, axis)
