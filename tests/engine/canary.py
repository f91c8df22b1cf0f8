"""An executor whose pages can be read: every position holds a fingerprint of its token, and logits depend on
all fingerprints of the row's past as found in its pages. Any page that is lost, shared wrongly or overwritten
changes the tokens drawn, so a plain list-of-tokens model is an oracle for the whole engine."""

from __future__ import annotations

import hashlib
import struct

import numpy as np

from headrace.spec.batch import Batch, Row
from headrace.spec.executor import Guarantees, Limits, StepResult
from headrace.spec.model import PAGE_TOKENS, Attention, Layer, Mlp, ModelSpec, Norm

VOCAB = 24


def tiny_spec(context: int = 512) -> ModelSpec:
    layer = Layer(Attention(1, 1, 2, 1.0), Mlp(2), Norm())
    return ModelSpec("llama", 2, VOCAB, context, (layer,), eos=(0,))


def fingerprint(position: int, token: int) -> int:
    digest = hashlib.sha256(struct.pack("<qq", position, token)).digest()
    return int.from_bytes(digest[:7], "little")


def logits_of(fingerprints: list[int]) -> np.ndarray:
    digest = hashlib.sha256(struct.pack(f"<{len(fingerprints)}q", *fingerprints)).digest()
    rng = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
    return (2 * rng.standard_normal(VOCAB)).astype(np.float32)


def oracle_logits(tokens: list[int]) -> np.ndarray:
    """What the engine must see after `tokens`, computed without pages."""
    return logits_of([fingerprint(p, t) for p, t in enumerate(tokens)])


def oracle_hidden(tokens: list[int]) -> np.ndarray:
    return oracle_logits(tokens)[:2]


class CanaryExecutor:
    def __init__(self, pages: int, tokens: int = 64, logits: int = 64, context: int = 512) -> None:
        self.spec = tiny_spec(context)
        self.limits = Limits((pages,), tokens, logits)
        self.guarantees = Guarantees("canary", "exact", True)
        self.pages = np.full((pages, PAGE_TOKENS), -1, dtype=np.int64)
        self.batches: list[Batch] = []
        self.fail_next: Exception | None = None
        self.closed = False

    def submit(self, batch: Batch) -> CanaryExecutor:
        assert batch.token_count <= self.limits.tokens and batch.logit_count <= self.limits.logits
        assert len({row.sequence for row in batch.rows}) == len(batch.rows)
        self.batches.append(batch)
        if self.fail_next is not None:
            raise self.fail_next
        for copy in batch.copies:
            self.pages[copy.target] = self.pages[copy.source]
        logits: list[np.ndarray] = []
        hidden = {}
        for index, row in enumerate(batch.rows):
            found = self._run(row)
            if row.logits_from is not None:
                logits += [logits_of(found[: row.start + i + 1]) for i in range(row.logits_from, len(row.tokens))]
            for read in row.reads:
                hidden[index, read] = np.stack(
                    [logits_of(found[: row.start + i + 1])[:2] for i in range(len(row.tokens))]
                )
        stacked = np.stack(logits) if logits else np.zeros((0, VOCAB), np.float32)
        self._result = StepResult(stacked, hidden)
        return self

    def _run(self, row: Row) -> list[int]:
        table = row.pages[0]
        for position, token in enumerate(row.tokens, row.start):
            self.pages[table[position // PAGE_TOKENS], position % PAGE_TOKENS] = fingerprint(position, token)
        end = row.start + len(row.tokens)
        return [int(self.pages[table[p // PAGE_TOKENS], p % PAGE_TOKENS]) for p in range(end)]

    def result(self) -> StepResult:
        return self._result

    def close(self) -> None:
        self.closed = True


class ToyTokenizer:
    """Ids only: tokens 1 to 3 are the bytes of a euro sign, the others a letter each; 0 ends."""

    eos = (0,)

    def token_bytes(self, token: int) -> bytes:
        return b"" if token == 0 else bytes([0xE2, 0x82, 0xAC][token - 1 : token] if token < 4 else [93 + token])

    def encode(self, text: str, special: bool = True, bos: bool = True) -> list[int]:
        return [1 + [0xE2, 0x82, 0xAC].index(b) if b > 127 else b - 93 for b in text.encode()]
