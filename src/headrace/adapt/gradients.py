"""What the holder of a model's weights computes of one document: chances token by token, and the loss's gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from headrace.adapt.lora import LoraModel
from headrace.adapt.train import compute_threads
from headrace.backends.reference.dense import DenseModel
from headrace.model.adapter import read_adapter
from headrace.model.catalogue import resolve
from headrace.model.loading import load_model
from headrace.spec.errors import UnsupportedModel
from headrace.spec.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Examined:
    """Of one document, all float64.

    `logprobs` [tokens - 1]: of every token after the first, in nats; `means` and `deviations` [tokens - 1]: of
    the log-probability of a token drawn in its place. `gradients` [layers]: length of the gradient of the mean
    loss in each layer, by the adapter's matrices or, without one, by the layer's own weights.
    """

    logprobs: np.ndarray
    means: np.ndarray
    deviations: np.ndarray
    gradients: np.ndarray


class Examiner:
    """A model in float32, with an adapter of PEFT's format where one is given.

    Raises ModelFileError, UnsupportedModel; ContextExceeded for a document beyond the context.
    """

    def __init__(self, model: str | Path, adapter: Path | None = None, threads: int = 1) -> None:
        loaded = load_model(resolve(str(model)), Ledger())
        if not loaded.spec.causal:
            raise UnsupportedModel(f"{loaded.name} is an encoder; audit a model that generates text.")
        dense = DenseModel(loaded.spec, loaded.weights)
        self._layers, self._threads, self._forward = len(loaded.spec.layers), threads, dense.forward
        if adapter is None:
            self._parameters = _in_layers(dense.parameters())
        else:
            self._parameters = LoraModel.of(dense, read_adapter(adapter, adapter.name, loaded.spec)).parameters()

    def __call__(self, tokens: Sequence[int]) -> Examined:
        """`tokens`: two or more ids of one document."""
        ids = torch.tensor([list(tokens)])
        with compute_threads(self._threads):
            logprobs = torch.log_softmax(self._forward(ids[:, :-1])[0], dim=-1)
            chosen = logprobs.gather(1, ids[0, 1:, None])[:, 0]
            gradients = torch.autograd.grad(-chosen.mean(), list(self._parameters.values()), allow_unused=True)
            with torch.no_grad():
                chances = logprobs.exp()
                means = (chances * logprobs).sum(-1)
                variances = (chances * logprobs.square()).sum(-1) - means.square()
            lengths = self._by_layer(gradients)
        deviations = variances.clamp(min=0).sqrt()
        chosen, means, deviations = (part.detach().double().numpy() for part in (chosen, means, deviations))
        return Examined(chosen, means, deviations, lengths)

    def _by_layer(self, gradients: Sequence[torch.Tensor | None]) -> np.ndarray:
        squares = np.zeros(self._layers)
        for name, gradient in zip(self._parameters, gradients, strict=True):
            if gradient is not None:
                squares[int(name.split(".")[1])] += float(gradient.double().square().sum())
        return np.sqrt(squares)


def _in_layers(parameters: Mapping[str, torch.nn.Parameter]) -> dict[str, torch.nn.Parameter]:
    """Those that belong to a layer; the others are frozen."""
    for name, parameter in parameters.items():
        parameter.requires_grad_(name.startswith("layers."))
    return {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
