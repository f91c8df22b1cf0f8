"""The adapters of a native model: float panels beside its weights, under the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from headrace.backends.check import check_new_adapter
from headrace.backends.native.weights import PANEL
from headrace.spec.adapter import Adapter
from headrace.spec.batch import Batch
from headrace.spec.ledger import Ledger, Reservation
from headrace.spec.model import ModelSpec


class Adapters:
    """`model`: a prepared `_kernels.Model`. `weights`: the native number of each product's weight."""

    def __init__(self, model: Any, spec: ModelSpec, weights: Mapping[str, int], ledger: Ledger) -> None:
        self._model, self._spec, self._weights, self._ledger = model, spec, weights, ledger
        self._numbers: dict[str, int] = {}
        self._panels: dict[str, Reservation] = {}
        self._rows: list[Reservation] = []

    def __contains__(self, name: object) -> bool:
        return name in self._numbers

    def add(self, adapter: Adapter) -> None:
        """Raises ModelFileError, InvalidRequest for a name that is taken, PlanRejected where there is no room."""
        check_new_adapter(adapter, self._spec, self)
        panels, rows = self._ledger.reserve_all(
            [
                ("weights", f"adapter {adapter.name}", panel_bytes(adapter)),
                ("workspace", "rows of adapters", self._model.low_bytes(adapter.rank)),
            ],
            lambda excess: "raise --memory, or remove an adapter",
        )
        self._panels[adapter.name] = panels
        self._rows.append(rows)
        self._numbers[adapter.name] = self._model.add_adapter(
            [
                (self._weights[weight], target.scale, _rows(target.a), _rows(target.b))
                for weight, target in adapter.targets.items()
            ]
        )

    def remove(self, name: str) -> None:
        """Gives its panels back; the room for its rows stays for the next one."""
        self._model.remove_adapter(self._numbers.pop(name))
        self._ledger.release(self._panels.pop(name))

    def of(self, batch: Batch) -> list[tuple[int, float]]:
        """Number and strength of each row's adapter, -1 for none; empty where no row has one."""
        if all(row.adapter is None for row in batch.rows):
            return []
        return [
            (-1, 0.0) if row.adapter is None else (self._numbers[row.adapter], row.adapter_scale) for row in batch.rows
        ]

    def release(self) -> None:
        """Gives everything back to the ledger. Nothing may run any more."""
        self._numbers = {}
        while self._panels:
            self._ledger.release(self._panels.popitem()[1])
        while self._rows:
            self._ledger.release(self._rows.pop())


def panel_bytes(adapter: Adapter) -> int:
    """Both matrices of each target, in panels of 16 outputs."""
    return sum(
        4 * PANEL * (_panels(target.rank) * target.a.shape[1] + _panels(target.b.shape[0]) * target.rank)
        for target in adapter.targets.values()
    )


def _panels(outputs: int) -> int:
    return -(-outputs // PANEL)


def _rows(matrix: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(matrix, np.float32)
