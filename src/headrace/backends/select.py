"""Chooses what runs the model, once, at load."""

from __future__ import annotations

import os
from importlib.util import find_spec

from headrace.spec.errors import UnsupportedModel
from headrace.spec.executor import Executor, Limits, WeightStore
from headrace.spec.ledger import Ledger
from headrace.spec.model import ModelSpec


def make_executor(
    backend: str, spec: ModelSpec, weights: WeightStore, limits: Limits, ledger: Ledger, dtype: str, threads: int | None
) -> Executor:
    """`backend`: "auto" or "reference". Raises UnsupportedModel when torch is not installed, PlanRejected."""
    if backend not in ("auto", "reference"):
        raise UnsupportedModel(f"There is no backend {backend!r}; choose auto or reference.")
    if find_spec("torch") is None:
        raise UnsupportedModel("The reference backend needs torch; install it with: pip install 'headrace[torch]'.")
    # Threads that spin at a barrier stall for whole time slices when another process takes a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from headrace.backends.reference.executor import ReferenceExecutor

    return ReferenceExecutor(spec, weights, limits, ledger, dtype=dtype, threads=threads)
