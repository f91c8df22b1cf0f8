"""Headrace: inference for large language models on hardware you own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.engine.engine import Engine
    from headrace.reason.llm import LLM
    from headrace.spec.budget import Budget
    from headrace.spec.errors import HeadraceError
    from headrace.spec.sampling import Sampling, Stop

__version__ = "0.1.0"
__all__ = ["LLM", "Budget", "Engine", "HeadraceError", "Sampling", "Stop"]

_HOMES = {
    "LLM": "headrace.reason.llm",
    "Budget": "headrace.spec.budget",
    "Engine": "headrace.engine.engine",
    "HeadraceError": "headrace.spec.errors",
    "Sampling": "headrace.spec.sampling",
    "Stop": "headrace.spec.sampling",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'headrace' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
