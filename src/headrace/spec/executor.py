"""What runs a Batch, and where its weights come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np

from headrace.spec.adapter import Adapter
from headrace.spec.batch import Batch
from headrace.spec.model import ModelSpec
from headrace.spec.program import Operation
from headrace.spec.sampling import Sampling


@dataclass(frozen=True, slots=True)
class Guarantees:
    """What a backend promises for the model it has loaded; echoed in every response.

    `profile` names the numerics (activation type, group size, reduction tree); `bit_exact` says that
    a row's result does not depend on the other rows, the chunking, the pages or the cache.
    """

    backend: str
    profile: str
    bit_exact: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes fixed before anything is loaded; arenas are cut to them and the scheduler keeps to them.

    `pages[g]`: pages of state group g. `tokens`: most tokens in a batch. `logits`: most logit rows.
    """

    pages: tuple[int, ...]
    tokens: int
    logits: int


@dataclass(slots=True)
class StepResult:
    """`logits`: [wanted rows, vocab] float32, in row order, then position.

    `hidden[(row index, hidden state)]`: [tokens of the row, hidden] float32.
    Arrays are valid until the next submit. It is its own Handle where the step ran inside submit.
    """

    logits: np.ndarray
    hidden: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)

    def result(self) -> StepResult:
        return self


class Handle(Protocol):
    def result(self) -> StepResult:
        """Waits for the step. Raises what the backend raised."""
        ...


Chooser: TypeAlias = Callable[[np.ndarray, Sampling, tuple[int, int], int], int]
"""(logits [vocab] float32, sampling, key of the noise, position) -> the token drawn, at a temperature above 0."""


class Executor(Protocol):
    """Runs batches of one loaded model. Called from one thread.

    A backend that draws tokens itself has a method `choose`, a Chooser; without it the engine does in numpy.
    """

    spec: ModelSpec
    limits: Limits
    guarantees: Guarantees

    def submit(self, batch: Batch) -> Handle: ...

    def add_adapter(self, adapter: Adapter) -> None:
        """Takes a copy that later batches may name; a row without one is computed as if there were none.

        Raises ModelFileError for one that does not fit the model, PlanRejected when the ledger has no room.
        """
        ...

    def remove_adapter(self, name: str) -> None:
        """Frees it; no later batch may name it."""
        ...

    def close(self) -> None:
        """Frees weights and arenas; a second call does nothing."""
        ...


class WeightStore(Protocol):
    """Where operations get their weights: resident, memory-mapped or windowed; operations never know."""

    def lease(self, operations: Sequence[Operation]) -> Mapping[str, Any]:
        """Canonical name -> `model.Tensor` for every weight that the operations read."""
        ...

    def release(self, operations: Sequence[Operation]) -> None: ...
