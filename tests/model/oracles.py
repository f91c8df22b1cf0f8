"""Token ids of llama.cpp (package xllamacpp) and of transformers' own GGUF conversion."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest


@contextmanager
def llama_cpp(path: Path) -> Iterator[Any]:
    """A function text -> ids of plain text: no special tokens read or added."""
    xllamacpp = pytest.importorskip("xllamacpp")
    settings = xllamacpp.CommonParams()
    settings.model.path = str(path)
    settings.n_ctx, settings.warmup, settings.verbosity = 64, False, -1
    settings.cpuparams.n_threads = 1
    server = xllamacpp.Server(settings)
    with httpx.Client(base_url=server.listening_address, timeout=60) as client:

        def encode(text: str, special: bool = False) -> list[int]:
            body = {"content": text, "add_special": False, "parse_special": special}
            ids: list[int] = client.post("/tokenize", json=body).json()["tokens"]
            return ids

        yield encode
    del server


def converted(path: Path) -> Any:
    """transformers' tokenizer made from the same file."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
