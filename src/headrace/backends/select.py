"""Chooses what runs the model, once, at load."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Literal

from headrace.spec.errors import UnsupportedModel
from headrace.spec.executor import Executor, Limits, WeightStore
from headrace.spec.ledger import Ledger
from headrace.spec.model import PAGE_TOKENS, ModelSpec
from headrace.spec.options import EngineOptions

_NO_KERNELS = (
    "The native kernels were not built, for want of a C++20 compiler or of Python's headers; install both "
    "(g++, python3-dev) and reinstall headrace, or use the reference backend: pip install 'headrace[torch]'."
)
_NO_TORCH = "The reference backend needs torch; install it with: pip install 'headrace[torch]'."


def choose_backend(wanted: Literal["auto", "native", "reference"]) -> Literal["native", "reference"]:
    """`auto` is native where its kernels were built. Raises UnsupportedModel naming what is missing."""
    native, torch = find_spec("headrace.backends.native._kernels"), find_spec("torch")
    if wanted != "reference" and native is not None:
        return "native"
    if wanted == "native" or (wanted == "auto" and torch is None):
        raise UnsupportedModel(_NO_KERNELS)
    if torch is None:
        raise UnsupportedModel(_NO_TORCH)
    return "reference"


def state_page_bytes(spec: ModelSpec, options: EngineOptions) -> int:
    """Bytes of a page in all state groups together."""
    if choose_backend(options.backend) == "native":
        from headrace.backends.native.executor import page_bytes

        return sum(sum(page_bytes(layer.attention, options.state_type)) for layer in spec.layers)
    value_bytes = 2 if options.dtype == "bf16" else 4
    return PAGE_TOKENS * value_bytes * sum(group.values_per_token for group in spec.state_groups())


def make_executor(
    spec: ModelSpec, weights: WeightStore, limits: Limits, ledger: Ledger, options: EngineOptions
) -> Executor:
    """Raises UnsupportedModel when the backend is not installed, PlanRejected when there is no room."""
    if choose_backend(options.backend) == "native":
        from headrace.backends.native.executor import NativeExecutor, Numerics

        numerics = Numerics(options.activations, options.state_type, options.weights)
        return NativeExecutor(spec, weights, limits, ledger, numerics, options.threads)
    # Threads that spin at a barrier stall for whole time slices when another process takes a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from headrace.backends.reference.executor import ReferenceExecutor

    return ReferenceExecutor(spec, weights, limits, ledger, dtype=options.dtype, threads=options.threads)
