"""Equal bits whatever the company, the chunks, the pages and the order; and the proof that tiling is why."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from backends.reference.build import executor
from backends.twins import ENCODER, MODELS, PAGES, decoder, draw, row, submit
from headrace.spec.batch import PageCopy
from headrace.spec.executor import Limits
from headrace.spec.model import ModelSpec, Rope

TOKENS = 75
CASES = [*itertools.product(MODELS, ["fp32"]), ("windows", "bf16"), ("experts", "bf16"), ("soft-caps", "bf16")]
WIDE = decoder(
    {"heads": 9, "kv_heads": 3, "head_dim": 64, "rope": Rope(64), "scale": 0.125},
    {"width": 1536},
    hidden=576,
)


def chunked(spec: ModelSpec, size: int, slots: Any = range(PAGES), dtype: str = "fp32", **options: Any) -> np.ndarray:
    """Logits of every token, computed `size` tokens a step in a fresh backend."""
    backend, tokens = executor(spec, dtype, **options), draw(TOKENS, vocab=spec.vocab)
    steps = [row(spec, tokens[at : at + size], at, slots) for at in range(0, TOKENS, size)]
    return np.concatenate([submit(backend, step).logits for step in steps])


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_chunks_and_page_slots(name: str, dtype: str) -> None:
    spec = MODELS[name]
    whole = chunked(spec, TOKENS, dtype=dtype)
    assert executor(spec, dtype).guarantees.bit_exact
    for size, slots in ((1, range(PAGES)), (3, (31, 2, 17, 5, 11)), (7, range(PAGES)[::-1]), (16, range(4, PAGES))):
        assert np.array_equal(whole, chunked(spec, size, slots, dtype)), size


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_company_and_order(name: str, dtype: str) -> None:
    """One row decoded and one prefilled chunk, alone and among 33 others, forwards and backwards."""
    spec, backend = MODELS[name], executor(MODELS[name], dtype)
    alone, crowd = {}, []
    for index in range(6):
        tokens = draw(20 + 9 * index, seed=index)
        slots = range(6 * index, 6 * index + 6)
        half = len(tokens) - (1 if index % 2 else 11)
        before = row(spec, tokens[:half], 0, slots, logits_from=None)
        after = row(spec, tokens[half:], half, slots, sequence=index, reads=(1,))
        submit(backend, before)
        result = submit(backend, after)
        alone[index] = (result.logits, result.hidden[0, 1])
        crowd.append(after)
    for order in (crowd, crowd[::-1]):
        together, at = submit(backend, *order), 0
        for place, member in enumerate(order):
            logits, hidden = alone[member.sequence]
            assert np.array_equal(together.logits[at : at + len(logits)], logits)
            assert np.array_equal(together.hidden[place, 1], hidden)
            at += len(logits)


def test_encoder_rows_alone_and_packed() -> None:
    backend, last = executor(ENCODER), len(ENCODER.layers)
    kind: dict[str, Any] = {"logits_from": None, "reads": (last,)}
    rows = [row(ENCODER, draw(5 + 9 * i, i), slots=range(7 * i, 7 * i + 7), **kind) for i in range(5)]
    packed = submit(backend, *rows)
    for index, one in enumerate(rows):
        assert np.array_equal(submit(backend, one).hidden[0, last], packed.hidden[index, last])


@pytest.mark.parametrize("name", ["grouped-query", "windows"])
def test_a_copied_page_continues_bit_equal(name: str) -> None:
    spec, backend, tokens = MODELS[name], executor(MODELS[name]), draw(41)
    groups = range(len(spec.state_groups()))
    submit(backend, row(spec, tokens[:40], slots=range(10)))
    wanted = submit(backend, row(spec, tokens[40:], 40, range(10))).logits
    source = row(spec, tokens, slots=range(10))
    forked = tuple((*source.pages[g][:2], 30) for g in groups)
    copies = tuple(PageCopy(g, source.pages[g][2], 30) for g in groups)
    child = row(spec, tokens[40:], 40)
    child = type(child)(1, "decode", 40, child.tokens, forked, 0)
    assert np.array_equal(submit(backend, child, copies=copies).logits, wanted)
    other = row(spec, draw(16, 9), 0, (30,), logits_from=None)
    submit(backend, type(other)(2, "prefill", 0, other.tokens, tuple((30,) for _ in groups)))
    assert not np.array_equal(submit(backend, child).logits, wanted)


def test_what_an_earlier_owner_left_in_a_page_is_never_seen() -> None:
    spec, backend = MODELS["grouped-query"], executor(MODELS["grouped-query"])
    clean = submit(backend, row(spec, draw(20))).logits
    with torch.inference_mode():
        for arena in (*backend._pages.keys.values(), *backend._pages.values.values()):
            arena[:PAGES].fill_(float("inf"))
    assert np.array_equal(submit(backend, row(spec, draw(20))).logits, clean)


def test_groups_of_tiles_and_chunks_of_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = chunked(MODELS["windows"], TOKENS)
    monkeypatch.setattr("headrace.backends.reference.attention.ARENA_BYTES", 4)
    assert np.array_equal(chunked(MODELS["windows"], TOKENS), whole)


def test_wide_model_is_exact_only_because_of_the_tiles() -> None:
    """Mutant: without row tiles, products of 1, 7 and 75 rows sum in different orders."""
    limits = Limits((PAGES,), 128, 128)
    tiled = [chunked(WIDE, size, limits=limits) for size in (TOKENS, 7, 1)]
    assert all(np.array_equal(tiled[0], other) for other in tiled[1:])
    loose = [chunked(WIDE, size, limits=limits, row_tile=None) for size in (TOKENS, 7, 1)]
    honest = executor(WIDE, limits=limits, row_tile=None).guarantees
    assert not all(np.array_equal(loose[0], other) for other in loose[1:])
    assert not honest.bit_exact and honest.profile == "torch-fp32/any-rows/blocks16"
