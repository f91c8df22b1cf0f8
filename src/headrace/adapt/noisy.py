"""Training along noisy gradients (DP-SGD, Abadi et al., arXiv 1607.00133), under any optimiser."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from headrace.adapt.recipe import Noise, Recipe
from headrace.adapt.train import Run

Losses: TypeAlias = Callable[[int], Sequence[Callable[[], Tensor]]]
"""A step's number -> what gives the loss of each of its lessons."""


class NoisyRun(Run):
    """A run that cuts the gradient of each lesson by itself and adds noise to their sum.

    The noise is a function of the recipe's seed and the step, so that runs repeat; whoever knows the seed can take
    it off again. The optimiser's own `clip` does nothing here.
    """

    def __init__(
        self, recipe: Recipe, parameters: Mapping[str, torch.nn.Parameter], losses: Losses, work: Path, noise: Noise
    ) -> None:
        self._losses, self._noise = losses, noise
        super().__init__(recipe, parameters, lambda step: torch.stack([loss() for loss in losses(step)]).mean(), work)

    def _fill_gradients(self) -> float:
        parameters, losses = list(self._parameters.values()), self._losses(self.step)
        sums, total = [torch.zeros_like(parameter) for parameter in parameters], 0.0
        for of_lesson in losses:
            loss = of_lesson()
            self._check_finite(loss)
            add_clipped(sums, torch.autograd.grad(loss, parameters), self._noise.clip)
            total += loss.item()
        generator = torch.Generator().manual_seed(_seed(self.recipe.seed, self.step))
        for parameter, summed in zip(parameters, sums, strict=True):
            noise = torch.randn(summed.shape, generator=generator)
            parameter.grad = summed.add_(noise, alpha=self._noise.scale * self._noise.clip) / len(losses)
        return total / len(losses)


def add_clipped(sums: Sequence[Tensor], gradients: Sequence[Tensor], clip: float) -> None:
    """Adds one lesson's gradients to the sums, cut to the length `clip` where they are longer."""
    length = float(torch.stack([gradient.norm() for gradient in gradients]).norm())
    share = min(1.0, clip / length) if length else 1.0
    for summed, gradient in zip(sums, gradients, strict=True):
        summed.add_(gradient, alpha=share)


def _seed(seed: int, step: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} noise {step}".encode()).digest()[:8]) >> 1
