"""Tokenizers from GGUF metadata that no packaged model here has: WordPiece, and SentencePiece with a space in front."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Core

from headrace.model.catalogue import find_local
from headrace.model.gguf_file import GgufFile
from headrace.model.tokenizer import Tokenizer
from headrace.spec.errors import UnsupportedModel
from model.strings import strings


def tokenizer(**metadata: Any) -> Tokenizer:
    keys = {f"tokenizer.ggml.{key}": value for key, value in metadata.items()}
    made = Tokenizer.from_gguf(GgufFile(Path("made.gguf"), keys, {}, 0, ()))
    assert made is not None
    return made


def test_wordpiece_equals_the_published_tokenizer() -> None:
    local = find_local("minilm-l6")
    if local is None:
        pytest.skip("minilm-l6 is not here; run `headrace pull minilm-l6`")
    published = Core.from_file(str(local.path / "tokenizer.json"))
    published.no_truncation()
    published.no_padding()
    vocabulary = json.loads((local.path / "tokenizer.json").read_text())["model"]["vocab"]
    names = sorted(vocabulary, key=vocabulary.get)
    special = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    tokens = [
        name if name in special or name.startswith("[unused") else name[2:] if name.startswith("##") else f"▁{name}"
        for name in names
    ]
    types = [3 if name in special else 1 for name in names]
    ids = {key: vocabulary[name] for key, name in (("bos", "[CLS]"), ("seperator", "[SEP]"), ("unknown", "[UNK]"))}
    ours = tokenizer(model="bert", tokens=tokens, token_type=types, **{f"{k}_token_id": v for k, v in ids.items()})
    for text in strings(300, seed=4):
        assert ours.encode(text, special=True) == published.encode(text).ids, repr(text)


PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "ab", "▁ab", "aa"]
SENTENCEPIECE = {
    "model": "llama",
    "tokens": PIECES,
    "scores": [0.0] * 262 + [-1.0, -2.0, -0.5, -3.0],
    "token_type": [2, 3, 3, *[6] * 256, *[1] * 7],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "unknown_token_id": 0,
}


def test_sentencepiece_puts_a_space_in_front_and_takes_it_away() -> None:
    ours = tokenizer(**SENTENCEPIECE)
    ids = ours.encode("ab aé")
    assert [PIECES[i] for i in ids] == ["<s>", "▁ab", "▁a", "<0xC3>", "<0xA9>"]
    assert ours.decode(ids) == "ab aé" and ours.token_bytes(ids[1]) == b" ab"
    assert ours.decode(ours.encode("  ab")) == "  ab" and ours.bos == 1 and ours.eos == (2,)
    plain = tokenizer(**SENTENCEPIECE, add_space_prefix=False, add_bos_token=False, add_eos_token=True)
    assert [PIECES[i] for i in plain.encode("aa b")] == ["aa", "▁", "b", "</s>"]
    assert plain.decode(plain.encode(" ab")) == " ab"


def test_best_score_joins_first() -> None:
    """ "aab": "ab" scores above "aa", so the first a stays alone."""
    ours = tokenizer(**SENTENCEPIECE, add_space_prefix=False)
    assert [PIECES[i] for i in ours.encode("aab", bos=False)] == ["a", "ab"]


def test_unknown_kinds_are_named() -> None:
    with pytest.raises(UnsupportedModel, match="'rwkv'"):
        tokenizer(model="rwkv", tokens=["a"])
    with pytest.raises(UnsupportedModel, match=r"tokenizer\.ggml\.pre to 'novel'"):
        tokenizer(model="gpt2", pre="novel", tokens=["a"], merges=[])
    assert Tokenizer.from_gguf(GgufFile(Path("x.gguf"), {"tokenizer.ggml.model": "no_vocab"}, {}, 0, ())) is None
    assert Tokenizer.from_gguf(GgufFile(Path("x.gguf"), {}, {}, 0, ())) is None
