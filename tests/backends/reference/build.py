"""The reference executor of a random twin."""

from __future__ import annotations

from typing import Any

from backends.twins import RandomStore, limits_of
from headrace.backends.reference.executor import ReferenceExecutor
from headrace.spec.ledger import Ledger
from headrace.spec.model import ModelSpec


def executor(spec: ModelSpec, dtype: str = "fp32", seed: int = 0, **options: Any) -> ReferenceExecutor:
    limits = options.pop("limits", limits_of(spec))
    return ReferenceExecutor(spec, RandomStore(spec, seed), limits, options.pop("ledger", Ledger()), dtype, **options)
