"""What split_inversion.py measures on: a model, texts of two sides, and one cell after the other."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from headrace.model.loading import load_model
from headrace.privacy.attacks.corpora import Work, split
from headrace.privacy.attacks.inversion import Likeness, clustered, invert, score_prompts
from headrace.privacy.attacks.public_model import NextToken, PublicBlocks
from headrace.privacy.attacks.recovery import Clock
from headrace.privacy.split.blocks import Blocks
from headrace.privacy.split.client import SplitModel
from headrace.privacy.split.cut import Cut
from headrace.privacy.split.noise import Noise
from headrace.privacy.split.piece import Backend, Piece
from headrace.privacy.split.remote import Remote
from headrace.privacy.split.utility import Utility
from headrace.spec.executor import WeightStore
from headrace.spec.ledger import Ledger
from headrace.spec.model import ModelSpec
from headrace.spec.program import compile_program

CONTEXT = 256
FIT_LENGTH = 64
"""Tokens of each of the attacker's own texts."""
BEHIND = 16
"""Tokens of the attacker's text behind which the whole vocabulary is run."""


class Subject:
    """`source`: what a server of the other half is started with. The attacker's tables are of one depth at a time."""

    def __init__(
        self, name: str, source: Path, spec: ModelSpec, weights: WeightStore,
        encode: Callable[[str], Sequence[int]], threads: int | None = None,
    ) -> None:  # fmt: skip
        self.name, self.source, self.spec, self.weights = name, source, spec, weights
        self.encode, self.threads = encode, threads
        self.texts = cache(self._texts)
        self.tables_seconds = 0.0
        self._blocks: tuple[int, PublicBlocks, np.ndarray] | None = None

    @classmethod
    def load(cls, path: Path, threads: int | None = None) -> Subject:
        loaded = load_model(path, Ledger())
        assert loaded.tokenizer is not None
        tokenizer = loaded.tokenizer
        return cls(
            loaded.name, path, loaded.spec, loaded.weights, lambda text: tokenizer.encode(text, bos=False), threads
        )

    @cached_property
    def table(self) -> np.ndarray:
        """The embedding, float32 [vocab, hidden]."""
        embed = compile_program(self.spec).operations[0]
        table: np.ndarray = self.weights.lease((embed,))["embed.weight"].numpy()
        return table

    @property
    def digest(self) -> str:
        return sha256(self.table.tobytes()).hexdigest()

    def _texts(self, side: int, count: int, length: int) -> list[list[int]]:
        """The beginnings of `count` texts of the victim (side 0) or the attacker (1), drawn; whole works apart."""
        works = split(topics(), 0)[side]
        found = [ids[:length] for work in works for text in work.texts if len(ids := list(self.encode(text))) >= length]
        return [found[index] for index in np.random.default_rng(side).permutation(len(found))[:count]]

    def whole(self, rows: int, backend: Backend = "reference") -> Piece:
        """The model in one piece; so many tokens a step, with their logits."""
        cut = Cut(self.spec, self.weights)
        return Piece(cut, context=CONTEXT, threads=self.threads, rows=rows, logits=rows, backend=backend)

    def blocks(self, depth: int) -> tuple[PublicBlocks, np.ndarray]:
        """The attacker's own copy, and the states of all tokens behind a text of the attacker's.

        Those, and the states of all tokens at position 0, are computed once a depth.
        """
        if self._blocks is None or self._blocks[0] != depth:
            if self._blocks is not None:
                self._blocks[1].close()
            self._blocks, clock = None, Clock()
            blocks = PublicBlocks(self.spec, self.weights, depth, CONTEXT, threads=self.threads)
            self._blocks = depth, blocks, blocks.vocabulary(self.texts(1, 1, FIT_LENGTH)[0][:BEHIND])
            blocks.vocabulary(())
            self.tables_seconds = clock.cost().seconds
        return self._blocks[1:]

    @cached_property
    def prior(self) -> NextToken:
        return NextToken(self.spec, self.weights, CONTEXT, self.threads)


@cache
def topics() -> tuple[Work, ...]:
    """Python's language reference as it comes with the interpreter, a paragraph a text, headings left out."""
    from pydoc_data.topics import topics as found

    parts = {name: tuple(part for part in text.split("\n\n") if len(part) > 60) for name, text in found.items()}
    return tuple(Work(name, parts[name]) for name in sorted(parts) if parts[name])


def run_cell(subject: Subject, kind: str, setting: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, Any]:
    runs: dict[str, Callable[..., dict[str, Any]]] = {
        "exact": exact, "utility": utility, "inversion": inversion, "null": null,
    }  # fmt: skip
    return runs[kind](subject, **setting, **counts)


def exact(subject: Subject, k: int, prompts: int, tokens: int) -> dict[str, Any]:
    """Greedy answers through a server process against the plain model's, turn by turn."""
    plain, native = subject.whole(32), subject.whole(32, "native")
    same, apart, ratios, to_native = 0, 0.0, [], []
    given = subject.texts(0, prompts, 16)
    with served(subject, k) as url, Remote(url) as server:
        model = SplitModel(subject.spec, subject.weights, k, server, context=CONTEXT, threads=subject.threads)
        for prompt in given:
            model.begin()
            ours, ours_logits, ours_seconds = greedy(lambda at, part: model.append(part)[0], prompt, tokens)
            theirs, their_logits, their_seconds = greedy(lambda at, part: plain.logits(0, at, part)[-1], prompt, tokens)
            _, _, native_seconds = greedy(lambda at, part: native.logits(0, at, part)[-1], prompt, tokens)
            same += int(np.sum(np.array(ours) == theirs))
            apart = max(apart, float(np.abs(ours_logits - their_logits).max()))
            ratios.append(ours_seconds / their_seconds)
            to_native.append(ours_seconds / native_seconds)
        carried = asdict(model.carried)
        model.close()
    plain.close()
    native.close()
    total = len(given) * tokens
    return {"tokens": total, "same": same, "logits_apart": apart, "slowdown": median(ratios),
            "slowdown_native": median(to_native), "carried": carried,
            "bytes_a_token": (carried["sent"] + carried["received"]) / carried["tokens"]}  # fmt: skip


def greedy(
    step: Callable[[int, Sequence[int]], np.ndarray], prompt: Sequence[int], count: int
) -> tuple[list[int], np.ndarray, float]:
    """New tokens, their logits [count, vocab], and wall seconds a token after the first."""
    known, found, given, began = list(prompt), [], list(prompt), 0.0
    for number in range(count):
        found.append(step(len(known) - len(given), given).copy())
        began = began or time.perf_counter()
        known.append(int(found[number].argmax()))
        given = known[-1:]
    return known[len(prompt) :], np.stack(found), (time.perf_counter() - began) / max(count - 1, 1)


@contextmanager
def served(subject: Subject, k: int) -> Iterator[str]:
    """`headrace split serve` in a process of its own; its URL."""
    words = [sys.executable, "-m", "headrace.cli", "split", "serve", str(subject.source), "--k", str(k), "--port", "0"]
    words += ["--slots", "1", "--context", str(CONTEXT)]
    words += [] if subject.threads is None else ["--threads", str(subject.threads)]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    try:
        assert process.stderr is not None
        line = next((line for line in process.stderr if " answers at " in line), "")
        assert line, "the server did not start"
        yield line.split(" answers at ")[1].strip()
    finally:
        process.terminate()
        process.communicate(timeout=60)


def utility(subject: Subject, k: int, noise: float, prompts: int, length: int) -> dict[str, Any]:
    """Every position's logits with noise against those without a cut, given the true text before."""
    upstream = Blocks(subject.spec, subject.weights, k, 1, CONTEXT, subject.threads)
    model = SplitModel(subject.spec, subject.weights, k, upstream, noise_of(k, noise), CONTEXT, subject.threads)
    plain = subject.whole(64)
    found = []
    for text in subject.texts(0, prompts, length):
        model.begin()
        found.append(Utility.of(plain.logits(0, 0, text), model.append(text, every=True)))
    for part in (model, upstream, plain):
        part.close()
    positions = sum(len(each.same) for each in found)
    divergence = sum(each.divergence * len(each.same) for each in found) / positions
    agreement = clustered([each.same for each in found], 0.0)
    return {"positions": positions, "agreement": asdict(agreement), "divergence": divergence,
            "logits_apart": max(each.apart for each in found)}  # fmt: skip


def inversion(
    subject: Subject, k: int, noise: float, prior: bool, prompts: int, length: int, fit: int
) -> dict[str, Any]:
    texts, (blocks, _) = subject.texts(0, prompts, length), subject.blocks(k)
    add = noise_of(k, noise)
    seen = [add(blocks.states(text)) for text in texts]
    return attacked(subject, k, noise, prior, texts, seen, fit)


def null(subject: Subject, k: int, prompts: int, length: int, fit: int) -> dict[str, Any]:
    """Random states, as long as the true ones, have nothing to do with the prompt."""
    texts, (blocks, _), rng = subject.texts(0, prompts, length), subject.blocks(k), np.random.default_rng(k)
    seen = []
    for text in texts:
        states = blocks.states(text)
        drawn = rng.standard_normal(states.shape)
        norms = np.linalg.norm(states, axis=1, keepdims=True)
        seen.append((drawn * norms / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32))
    return attacked(subject, k, 0.0, False, texts, seen, fit)


def attacked(
    subject: Subject, k: int, noise: float, prior: bool, texts: Sequence[Sequence[int]], seen: Sequence[np.ndarray],
    fit: int,
) -> dict[str, Any]:  # fmt: skip
    blocks, table = subject.blocks(k)  # made once, and not of this cell's cost
    clock = Clock()
    likeness = likeness_of(subject, k, noise, fit)
    guesses = [invert(each, blocks, likeness, noise, subject.prior if prior else None) for each in seen]
    cost = clock.cost(table, *seen, tokens=sum(map(len, texts)))
    truths = [np.array(text) for text in texts]
    exactly = sum(int(np.array_equal(guess, truth)) for guess, truth in zip(guesses, truths, strict=True))
    details = {"prompts": len(texts), "whole_prompts": exactly, "attacker_tokens": fit,
               "tables_seconds": subject.tables_seconds}  # fmt: skip
    return score_prompts("inversion", guesses, truths, subject.spec.vocab, cost, details).to_json()


def likeness_of(subject: Subject, k: int, noise: float, fit: int) -> Likeness:
    """Position 0 is left out: its states stand apart, and the attack looks them up."""
    (blocks, table), texts = subject.blocks(k), subject.texts(1, -(-fit // (FIT_LENGTH - 1)), FIT_LENGTH)
    states = np.concatenate([blocks.states(text)[1:] for text in texts])[:fit]
    tokens = np.array([token for text in texts for token in text[1:]])[:fit]
    return Likeness.fit(table, tokens, states, noise)


def noise_of(k: int, noise: float) -> Noise:
    """The same noise in every run of a cell."""
    return Noise(noise, sha256(f"{k} {noise}".encode()).digest())
