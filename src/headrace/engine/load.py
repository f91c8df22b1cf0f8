"""From a model's name to a running engine: sizes are decided and checked before anything is loaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.backends.advice import LEAST_PAGES
from headrace.backends.select import choose_backend, make_executor, state_page_bytes
from headrace.model.adapter import read_adapter
from headrace.model.catalogue import resolve
from headrace.model.loading import load_model
from headrace.schedule.store import pages_for
from headrace.spec.executor import Limits
from headrace.spec.ledger import Ledger, mib
from headrace.spec.model import ModelSpec
from headrace.spec.options import EngineOptions

if TYPE_CHECKING:
    from headrace.engine.engine import Engine

DEFAULT_STATE = 512 * 2**20
"""Bytes of KV pages where nothing is said: 20,000 tokens of a 135M model, and room on any laptop."""

RUNTIME_RESERVE = {"reference": 64 * 2**20, "native": 32 * 2**20}
"""Interpreter, tokenizer and library memory after imports: measured, docs/memory.md has the figures."""


def load_engine(
    cls: type[Engine], model: str | Path, options: EngineOptions, progress: Callable[[str, int, int], None] | None
) -> Engine:
    """Raises ModelFileError, UnsupportedModel, PlanRejected."""
    path = resolve(str(model), progress)
    ledger = Ledger(None if options.memory is None else options.memory * 2**20)
    loaded = load_model(path, ledger, options.context)
    ledger.charge("runtime", "runtime reserve", RUNTIME_RESERVE[choose_backend(options.backend)])
    adapters = [read_adapter(folder, name, loaded.spec) for name, folder in options.adapter_folders.items()]
    as_read = ledger.charge("weights", "adapters as read", sum(adapter.nbytes for adapter in adapters))
    limits = decide_limits(loaded.spec, options)
    executor = make_executor(loaded.spec, loaded.weights, limits, ledger, options)
    engine = cls(executor, loaded.tokenizer, options, ledger, loaded.name)
    try:
        for adapter in adapters:
            engine.add_adapter(adapter.name, adapter)
    except BaseException:
        engine.close()
        raise
    ledger.release(as_read)
    return engine


def decide_limits(spec: ModelSpec, options: EngineOptions) -> Limits:
    """Pages of each state group, and the most tokens and logit rows of a step."""
    groups = spec.state_groups()
    page_bytes = state_page_bytes(spec, options)
    state = DEFAULT_STATE if options.state_memory is None else options.state_memory * 2**20
    if options.state_memory is None:
        state = min(state, page_bytes * pages_for(spec.context) * options.running, _free_memory() // 4)
    pages = max(state // page_bytes, LEAST_PAGES)
    tokens = options.step_tokens if spec.causal else max(options.step_tokens, spec.context)
    return Limits((pages,) * len(groups), max(tokens, 1), min(max(options.running, 32), max(tokens, 1)))


def _free_memory() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 4 * DEFAULT_STATE


def describe_memory(ledger: Ledger) -> str:
    """One line: total and parts."""
    parts = ", ".join(f"{tag} {mib(size)}" for tag, size in ledger.by_tag().items())
    return f"{mib(ledger.total)} ({parts})"
