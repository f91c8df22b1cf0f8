"""Byte-pair merges of tokens that a GGUF file's vocabulary lacks are dropped; all others stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.model.gguf_file import GgufFile
from headrace.model.tokenizer import Tokenizer

TOKENS = ["a", "b", "c", "ab", "abc"]


@pytest.mark.parametrize("foreign", [[], ["a x"], ["c b"], ["x y"]], ids=["none", "right", "joined", "all"])
def test_merges_of_unknown_tokens_are_dropped(foreign: list[str]) -> None:
    metadata = {"model": "gpt2", "pre": "gpt-2", "tokens": TOKENS, "merges": [*foreign, "a b", "ab c"]}
    file = GgufFile(Path("made.gguf"), {f"tokenizer.ggml.{key}": value for key, value in metadata.items()}, {}, 0, ())
    tokenizer = Tokenizer.from_gguf(file)
    assert tokenizer is not None
    assert tokenizer.encode("abcb") == [TOKENS.index("abc"), TOKENS.index("b")]
