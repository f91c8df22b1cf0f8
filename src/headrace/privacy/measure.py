"""Measures a veiled model for the report: the attacks on its artefact, and its speed beside the plain model's."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import cast

import numpy as np

from headrace.backends.select import make_executor
from headrace.engine.engine import Engine
from headrace.model.loading import ResidentStore
from headrace.model.tensor import Tensor
from headrace.privacy.attacks.artefact import Opened
from headrace.privacy.attacks.on_weights import align_folder
from headrace.privacy.attacks.oracle import oracle
from headrace.privacy.attacks.recovery import Recovery
from headrace.privacy.attacks.traffic import check_ids
from headrace.privacy.attacks.truth import Truth, truth_of
from headrace.privacy.report import Report, plain_line, results_folder, stored_lines, veil_line
from headrace.privacy.veil.export import export
from headrace.privacy.veil.keyfile import ClientKey
from headrace.privacy.veil.notice import MANIFEST
from headrace.privacy.veil.shards import Kind, stored
from headrace.privacy.veil.source import new_key
from headrace.spec.batch import Batch, Row
from headrace.spec.errors import InvalidRequest
from headrace.spec.executor import Executor, Limits
from headrace.spec.ledger import Ledger
from headrace.spec.model import PAGE_TOKENS
from headrace.spec.options import EngineOptions

PROMPT = DECODED = 16


@dataclass(frozen=True, slots=True)
class Case:
    """`public`: the weights that an attacker has, if any. `truth`: by which attacks are scored, if the key is here."""

    deployed: Opened
    public: Opened | None
    truth: Truth | None


@contextmanager
def veiled_for(model: Opened, public: Opened | None, key: ClientKey | None) -> Iterator[Case]:
    """A veiled folder as it stands; a plain model veiled in a folder that is taken away again, by a fresh key if none.

    Raises InvalidRequest where a plain model comes with public weights of its own.
    """
    if (model.path / MANIFEST).is_file():
        yield Case(model, public, None if key is None else truth_of(model.path, key, model.spec))
        return
    if public is not None:
        raise InvalidRequest(f"{model.name} is not veiled and public itself; leave --public out.", "public")
    key = key or new_key(model.path)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "veiled"
        export(model.path, key, target)
        deployed = Opened(target)
        yield Case(deployed, model, truth_of(target, key, deployed.spec))


def measured(
    case: Case,
    known: np.ndarray | None = None,
    tokens: int = 30_000,
    runs: int = 5,
    results: Path | None = None,
    options: EngineOptions = EngineOptions(),
) -> Report:
    """`known`: ids of the attacker's own text, by which the veiled model is made an oracle of `tokens` ids.

    `runs` 0 measures no slowdown. `results`: folder of the other profiles' result files, by default this checkout's.
    Raises InvalidRequest for what this model cannot be measured by.
    """
    if known is not None and not case.deployed.spec.causal:
        name = (case.public or case.deployed).name
        raise InvalidRequest(f"{name} is an encoder, which writes no text to attack; leave --known out.", "known")
    if known is not None:
        check_ids(known, case.deployed.spec.vocab)
    slower, recoveries = None, []
    if case.public is not None and runs and case.public.spec.vocab == case.deployed.spec.vocab:
        slower = slowdown(case.public, case.deployed, runs, options)
    if case.public is not None:
        recoveries.append(align_folder(case.public, case.deployed, case.truth))
    if known is not None:
        recoveries.append(_oracle(case, known, tokens, options))
    folder = results_folder() if results is None else results
    lines = (plain_line(), veil_line(slower, recoveries), *stored_lines(folder))
    return Report(case.deployed.name if case.public is None else case.public.name, lines, tuple(recoveries))


def _oracle(case: Case, known: np.ndarray, tokens: int, options: EngineOptions) -> Recovery:
    mapped = None if case.truth is None else case.truth.token_map
    with closing(Engine.load(case.deployed.path, options)) as engine:
        return oracle(engine, known, tokens, case.deployed.first_id(), mapped)


def slowdown(plain: Opened, veiled: Opened, runs: int, options: EngineOptions = EngineOptions()) -> float:
    """Seconds a token of the veiled model over the plain one's at the same weight type: the median of alternations.

    One sequence is decoded after a short prompt; of an encoder a whole text is run. Raises InvalidRequest for a
    context that does not hold it.
    """
    if (least := min(plain.spec.context, veiled.spec.context)) < PROMPT + DECODED:
        needed = f"has a context of {least} tokens, and the slowdown is measured over {PROMPT + DECODED}"
        raise InvalidRequest(f"{plain.name} {needed}; give --runs 0.", "runs")
    kind = cast("Kind", veiled.tensors["embed.weight"].kind)
    weights = {name: _as_kind(tensor, kind) for name, tensor in plain.tensors.items()}
    ratios: list[float] = []
    with (
        closing(_executor(plain, weights, options)) as one,
        closing(_executor(veiled, veiled.tensors, options)) as other,
    ):
        for run in range(runs + 1):
            seconds = _seconds(one), _seconds(other)
            if run:  # the first run warms both
                ratios.append(seconds[1] / seconds[0])
    return median(ratios)


def _as_kind(tensor: Tensor, kind: Kind) -> Tensor:
    return Tensor(tensor.name, tensor.shape, kind, lambda: stored(tensor.numpy(), kind, tensor.name))


def _executor(model: Opened, weights: Mapping[str, Tensor], options: EngineOptions) -> Executor:
    pages = (PROMPT + DECODED) // PAGE_TOKENS
    limits = Limits((pages,) * len(model.spec.state_groups()), PROMPT, 1)
    return make_executor(model.spec, ResidentStore(weights), limits, Ledger(), options)


def _seconds(executor: Executor) -> float:
    """Wall seconds of the steps after the prompt."""
    groups, causal = len(executor.limits.pages), executor.spec.causal
    ids = np.random.default_rng(0).integers(executor.spec.vocab, size=PROMPT + DECODED).tolist()
    began = time.perf_counter()
    for step, start in enumerate((0, *range(PROMPT, PROMPT + DECODED)) if causal else (0,) * DECODED):
        tokens = ids[:PROMPT] if start == 0 else ids[start : start + 1]
        table = tuple(range((start + len(tokens) - 1) // PAGE_TOKENS + 1))
        if step == 1 and causal:
            began = time.perf_counter()
        wanted = len(tokens) - 1 if causal else None
        row = Row(0, "decode" if start else "prefill", start, tuple(tokens), (table,) * groups, wanted)
        executor.submit(Batch(step, (row,))).result()
    return time.perf_counter() - began
