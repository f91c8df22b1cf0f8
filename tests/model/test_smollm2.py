"""SmolLM2 from its GGUF file against the same dequantised weights in transformers."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headrace.backends.select import make_executor
from headrace.model.loading import load_model
from headrace.spec import program
from headrace.spec.executor import Limits
from headrace.spec.ledger import Ledger
from headrace.spec.options import EngineOptions
from model.pages import Runner

TOLERANCE = {"reference": 1e-4, "native": 5e-4}
"""Largest difference over largest logit; native activations have 16 bits where they meet quantised weights."""


BACKENDS = pytest.mark.parametrize("backend", ["reference", "native"])


def largest_difference(path: Path, length: int, backend: Any) -> float:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=torch.float32).eval()
    loaded = load_model(path, Ledger())
    assert loaded.tokenizer is not None
    text = inspect.getdoc(program) or ""
    tokens = loaded.tokenizer.encode((text + inspect.getsource(program))[: length * 8])[:length]
    assert len(tokens) == length
    with torch.no_grad():
        wanted = theirs(torch.tensor([tokens])).logits[0].numpy()
    pages = length // 16 + 1
    if backend == "native":
        pytest.importorskip("headrace.backends.native._kernels", reason="the native kernels were not built")
    options, limits = EngineOptions(backend=backend, state_type="fp32"), Limits((pages,), length, length)
    executor = make_executor(loaded.spec, loaded.weights, limits, Ledger(), options)
    runner, cut = Runner(executor, loaded.spec, pages), length * 3 // 4
    ours = [*runner.run([(0, 0, tokens[:cut])]), *runner.run([(0, cut, tokens[cut:])])]
    return float(np.abs(np.concatenate(ours) - wanted).max() / np.abs(wanted).max())


@BACKENDS
def test_matches_transformers(smollm2: Path, backend: str) -> None:
    assert largest_difference(smollm2, 64, backend) <= TOLERANCE[backend]


@pytest.mark.prove
@BACKENDS
def test_matches_transformers_over_512_tokens(smollm2: Path, backend: str, figures: dict[str, Any]) -> None:
    figures["largest difference over largest logit"] = found = largest_difference(smollm2, 512, backend)
    figures["tokens"] = 512
    assert found <= TOLERANCE[backend]
