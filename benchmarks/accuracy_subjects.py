"""Whose logits accuracy.py compares: a Headrace backend, or llama.cpp in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from peer_runners.install import PEERS, install, python_of

from headrace.cli.machine import installed
from headrace.engine.load import load_engine
from headrace.model.catalogue import cache_folder, resolve
from headrace.model.tokenizer import Tokenizer
from headrace.spec.batch import Batch, Row
from headrace.spec.errors import HeadraceError, InvalidRequest
from headrace.spec.executor import Executor
from headrace.spec.ledger import Ledger
from headrace.spec.model import PAGE_TOKENS
from headrace.spec.options import EngineOptions

WINDOW = 512
LLAMA_SETTINGS = {"n_ctx": WINDOW, "n_batch": WINDOW, "n_ubatch": WINDOW, "flash_attn": True}


class Subject(Protocol):
    about: dict[str, Any]
    """What makes its figures its own: version, profile, options."""

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        """float32 [tokens, vocab]: row i is the prediction after tokens[: i + 1]."""
        ...

    def close(self) -> None: ...


@dataclass
class Headrace(Subject):
    """An executor as the engine would build it, run without the engine, which returns no full logits."""

    executor: Executor
    tokenizer: Tokenizer
    options: EngineOptions
    ledger: Ledger
    name: str

    def __post_init__(self) -> None:
        made = self.executor.guarantees
        self.about = {
            "version": installed("headrace"),
            "backend": made.backend,
            "profile": made.profile,
        }
        self._step = 0

    @classmethod
    def load(cls, model: str, options: dict[str, Any]) -> Headrace:
        # Every position asks for logits, and the engine makes room for as many rows as may run.
        sizes = {"step_tokens": WINDOW, "running": WINDOW, "state_memory": 256}
        known = {option.name for option in fields(EngineOptions)}
        if unknown := sorted(options.keys() - known):
            raise InvalidRequest(f"headrace has no option {unknown[0]!r}; choose from {', '.join(sorted(known))}.")
        chosen = EngineOptions(**(sizes | options))
        return load_engine(cls, model, chosen, None)  # type: ignore[arg-type, return-value]

    def logits(self, tokens: Sequence[int], start: int = 0) -> np.ndarray:
        """With `start` the tokens go on after those of the calls before."""
        table = tuple(range(-(-(start + len(tokens)) // PAGE_TOKENS)))
        groups = len(self.executor.spec.state_groups())
        row = Row(0, "decode" if start else "prefill", start, tuple(map(int, tokens)), (table,) * groups, logits_from=0)
        self._step += 1
        return self.executor.submit(Batch(self._step, (row,))).result().logits

    def greedy(self, prompt: Sequence[int], most: int) -> list[int]:
        answer: list[int] = []
        ahead, start = list(prompt), 0
        while len(answer) < most:
            answer.append(int(self.logits(ahead, start)[-1].argmax()))
            if answer[-1] in self.executor.spec.eos:
                break
            ahead, start = answer[-1:], start + len(ahead)
        return answer

    def close(self) -> None:
        self.executor.close()


class LlamaCpp(Subject):
    """llama.cpp in a process and an environment of its own."""

    def __init__(self, python: Path, model: str, options: dict[str, Any], vocab: int) -> None:
        settings = LLAMA_SETTINGS | {"n_threads": threads(), "n_threads_batch": threads()} | options
        command = [str(python), str(Path(__file__).with_name("llama_logits.py")), str(resolve(model))]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        process: Any = subprocess.Popen([*command, json.dumps(settings)], **pipes)
        self._process = process
        line = process.stdout.readline()
        if not line:
            raise HeadraceError(f"llama.cpp did not start; run {' '.join(command)} '{{}}' to see why.")
        self.about = json.loads(line) | {"settings": settings}
        if self.about.pop("vocab") != vocab:
            raise HeadraceError("llama.cpp read another vocabulary; compare on a file that both read alike.")
        self._vocab = vocab

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        self._process.stdin.write(json.dumps([int(t) for t in tokens]).encode() + b"\n")
        self._process.stdin.flush()
        size = 4 * len(tokens) * self._vocab
        data = self._process.stdout.read(size)
        if len(data) < size:
            raise HeadraceError("llama.cpp died; run benchmarks/llama_logits.py alone to see why.")
        return np.frombuffer(data, np.float32).reshape(len(tokens), self._vocab)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def llama_python() -> Path:
    """The interpreter of the environment that peers.py measures llama.cpp in, made where it is missing."""
    cache = cache_folder() / "peers"
    install(cache, PEERS["llama.cpp"])
    return python_of(cache, "llama.cpp")


def open_subject(name: str, model: str, vocab: int, python: Path | None) -> Subject:
    """Raises InvalidRequest for a name that nothing here knows."""
    kind, _, options = name.partition(":")
    chosen = {key: value_of(value) for key, _, value in (part.partition("=") for part in options.split(",") if part)}
    if kind == "headrace":
        return Headrace.load(model, chosen)
    if kind == "llama.cpp":
        return LlamaCpp(python or llama_python(), model, chosen, vocab)
    raise InvalidRequest(f"There is no subject {kind!r}; choose headrace or llama.cpp.")


def value_of(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
