"""A model, its veiled twin and a server process of that one: what the claim and the benchmark of the veil compare."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from headrace.backends.select import choose_backend, make_executor
from headrace.engine.engine import Engine
from headrace.evidence.stage import RandomWeights, Stage, tiny_spec
from headrace.model.loading import ResidentStore, load_model
from headrace.model.tensor import Tensor
from headrace.model.tokenizer import Tokenizer
from headrace.privacy.veil.export import Export, export
from headrace.privacy.veil.keyfile import ClientKey
from headrace.privacy.veil.planner import untied
from headrace.privacy.veil.published import FileTensor, Part, file_tensors
from headrace.privacy.veil.settings import folder_settings, veiled_settings, written_settings
from headrace.privacy.veil.shards import Kind, cut, index_of, write_shard
from headrace.privacy.veil.source import new_key, special_ids
from headrace.privacy.veil.tokens import TokenMap
from headrace.schedule.store import pages_for
from headrace.spec.errors import HeadraceError
from headrace.spec.executor import Limits
from headrace.spec.ledger import Ledger
from headrace.spec.model import ModelSpec
from headrace.spec.options import EngineOptions
from headrace.spec.program import compile_program

MOST_TOKENS = 512
"""Of a prompt with its answer."""
LOGITS = 64
ROOM = 8_192
"""Tokens whose state a stage has room for."""
BUDGET = 1_000_000
KNOWN = bytes(range(32))
"""A secret that everybody knows: figures of its keys are those of any key, and can be had again."""
Twin: TypeAlias = Literal["plain", "untied", "veiled"]
TWINS: tuple[Twin, ...] = get_args(Twin)


@dataclass(frozen=True, slots=True)
class Pair:
    """A source, two folders of its values in float, unveiled and veiled, and the key, which the server never has."""

    source: Path
    plain: Path
    veiled: Path
    key: ClientKey
    tokens: TokenMap

    @classmethod
    def made(cls, source: Path, folder: Path, kind: Kind = "f32", secret: bytes | None = None) -> Pair:
        """Writes both folders. Raises what `export` does."""
        key = key_of(source, secret)
        plain, veiled = folder / f"plain-{kind}", folder / f"veiled-{kind}"
        write_twin("plain", source, key, plain, kind)
        write_twin("veiled", source, key, veiled, kind)
        return cls(source, plain, veiled, key, TokenMap.of(key))

    def tokenizer(self) -> Tokenizer | None:
        return load_model(self.source, Ledger()).tokenizer


def key_of(source: Path, secret: bytes | None = None) -> ClientKey:
    """A fresh key; with 32 bytes of `secret` the same one each time."""
    key = new_key(source, BUDGET)
    return key if secret is None else replace(key, master=replace(key.master, secret=secret))


# -- folders ---------------------------------------------------------------------------------------


def write_twin(twin: Twin, source: Path, key: ClientKey, folder: Path, kind: Kind) -> None:
    """The model as it is, with a head of its own, or veiled. Raises what `export` does."""
    if twin == "veiled":
        export(source, key, folder, Export(kind))
    else:
        write_plain(source, folder, kind, tied=False if twin == "untied" else None)


def write_plain(source: Path, folder: Path, kind: Kind, tied: bool | None = None) -> None:
    """The weights that `export` starts from, as they are: a model's folder without a tokenizer.

    `tied` False gives the head a table of its own, as a veil does; None leaves that as it is.
    """
    loaded = load_model(source, Ledger())
    spec, tensors = loaded.spec, dict(loaded.weights.lease(compile_program(loaded.spec).operations))
    if tied is False:
        spec, tensors = untied(spec, tensors)
    published = (source / "config.json").is_file()
    settings = folder_settings(source, spec) if published else written_settings(spec)
    write_folder(spec, tensors, settings, folder, kind, special_ids(loaded))


def write_folder(
    spec: ModelSpec,
    tensors: Mapping[str, Tensor],
    settings: Mapping[str, Any],
    folder: Path,
    kind: Kind,
    specials: Mapping[str, Any],
) -> None:
    """A checkpoint as published ones are. Raises SymmetryError for settings that read back as another model."""
    folder.mkdir(parents=True)
    told = veiled_settings(replace(spec, tied=False), settings, kind) | {"tie_word_embeddings": spec.tied}
    (folder / "config.json").write_text(json.dumps(told | dict(specials), indent=1), encoding="utf-8")
    shards = cut(file_tensors(spec), kind)
    for shard in shards:
        write_shard(folder, shard, kind, lambda tensor: _values(tensor, tensors))
    if len(shards) > 1:
        index = json.dumps(index_of(shards, kind), indent=1)
        (folder / "model.safetensors.index.json").write_text(index, encoding="utf-8")


def _values(tensor: FileTensor, tensors: Mapping[str, Tensor]) -> Iterator[np.ndarray]:
    whole = np.concatenate([_part(part, tensors) for part in tensor.parts])
    yield (whole.T if tensor.transposed else whole) + tensor.shift


def _part(part: Part, tensors: Mapping[str, Tensor]) -> np.ndarray:
    source = tensors[part.tensor]
    return (source if part.expert is None else source.at(part.expert)).numpy().astype(np.float64)


def write_tiny(folder: Path) -> Path:
    """A random llama over bytes, with its tokenizer."""
    from tokenizers import Tokenizer as Core
    from tokenizers import decoders, models, pre_tokenizers

    spec = tiny_spec()
    tensors = RandomWeights(spec).lease(compile_program(spec).operations)
    write_folder(spec, tensors, written_settings(spec), folder, "f32", {})
    core = Core(models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.save(str(folder / "tokenizer.json"))
    return folder


# -- what runs them --------------------------------------------------------------------------------


def stage_of(
    folder: Path,
    tokenizer: Tokenizer | None = None,
    changed: Mapping[str, Tensor] | None = None,
    logits: int = LOGITS,
    **options: Any,
) -> Stage:
    """A folder's executor, with state in fp32, its weights packed anew; `changed` weights take others' places.

    `logits`: most rows of a step that may ask for theirs.
    """
    ledger, how = Ledger(), EngineOptions(**{"state_type": "fp32", **options})
    loaded = load_model(folder, ledger, MOST_TOKENS)
    held = loaded.weights.lease(compile_program(loaded.spec).operations)
    weights = ResidentStore({**held, **(changed or {})})
    limits = Limits((pages_for(ROOM),) * len(loaded.spec.state_groups()), MOST_TOKENS, logits)
    return Stage(make_executor(loaded.spec, weights, limits, ledger, how), tokenizer, loaded.name)


@contextmanager
def paced(
    staged: Callable[[Twin], Stage], tokens: TokenMap, times: int = 1
) -> Iterator[dict[Twin, tuple[Engine, list[int]]]]:
    """An engine of each twin with what it goes on from: `times` one question, in the ids that it knows."""
    with ExitStack() as stack:
        engines: dict[Twin, tuple[Engine, list[int]]] = {}
        for twin in TWINS:
            stage = stack.enter_context(staged(twin))
            engine = stack.enter_context(stage.engine())
            prompt = engine.encode(told_prompts(stage.tokenizer, 1)[0]) * times
            engines[twin] = (engine, tokens.veiled(prompt) if twin == "veiled" else prompt)
        yield engines


@contextmanager
def served(folder: Path, cache: Path, threads: int | None = None) -> Iterator[tuple[str, int]]:
    """`headrace serve` of a folder, in a process of its own that is told nothing else: its URL and its id.

    `cache` takes the packed weights. Raises HeadraceError where it does not start.
    """
    words = [sys.executable, "-m", "headrace.cli", "serve", str(folder), "--port", "0", "--state-memory", "256"]
    words += ["--state-type", "fp32"] if choose_backend("auto") == "native" else []
    words += ["--threads", str(threads)] if threads else []
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen(words, text=True, env=os.environ | {"HEADRACE_CACHE": str(cache)}, **pipes)
    try:
        yield _address(process, folder), process.pid
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()


def _address(process: subprocess.Popen, folder: Path) -> str:
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line.strip())
        if " answers at " in line:
            return line.split(" answers at ")[1].strip()
    last = next((line for line in reversed(lines) if line), "it said nothing")
    raise HeadraceError(f"The server did not start ({last}); run `headrace serve {folder}` to see why.")


def told_prompts(tokenizer: Tokenizer | None, count: int) -> Sequence[Any]:
    """Questions as a chat, or as text for a model without a chat's form."""
    asked = [f"{QUESTIONS[n % len(QUESTIONS)]} {SUBJECTS[n % len(SUBJECTS)]}?" for n in range(count)]
    if tokenizer is None or tokenizer.chat_template is None:
        return asked
    return [[{"role": "user", "content": text}] for text in asked]


QUESTIONS = ("What is", "What do people say about", "In one sentence, what is the use of")
SUBJECTS = (
    "a water wheel", "a lighthouse", "salt", "the moon", "a loom", "honey", "the tide", "a compass", "bread", "a bell",
    "glass", "a glacier", "ink", "a harbour", "chess", "iron", "a bridge", "wool", "thunder", "a library",
    "copper", "a garden", "the equator", "paper", "a clock", "coal", "a violin", "rice", "a canal", "silk",
    "fog", "a telescope", "clay", "a market", "ice", "a ladder", "tea", "a volcano", "sugar", "an orchard",
    "steam", "a map", "sand", "a kite", "wine", "a mirror", "cork", "a plough", "amber",
)  # fmt: skip
