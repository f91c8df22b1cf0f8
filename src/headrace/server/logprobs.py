"""Log-probabilities in the two shapes that OpenAI's routes use."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from headrace.server.replies import ChatLogprobs, ChatTokenLogprob, ChatTop, PromptLogprob, TextLogprobs

if TYPE_CHECKING:
    from headrace.engine.sampling import TokenLogprob
    from headrace.model.tokenizer import Tokenizer

LOWEST = -9999.0
"""Stands for minus infinity, which JSON does not have."""


class TokenNames:
    """How token ids are shown. Without a tokenizer a token is `token_id:N` and has no bytes."""

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer
        self.text = lru_cache(maxsize=4096)(self._text)
        self.bytes = lru_cache(maxsize=4096)(self._bytes)

    def _text(self, token: int) -> str:
        return f"token_id:{token}" if self._tokenizer is None else self._tokenizer.token_text(token)

    def _bytes(self, token: int) -> bytes | None:
        return None if self._tokenizer is None else self._tokenizer.token_bytes(token)


class Offsets:
    """Where each token's characters start in a text, characters of several tokens counted once."""

    def __init__(self, names: TokenNames, start: int = 0) -> None:
        self._names = names
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._length = start

    def next(self, token: int) -> int:
        at = self._length
        self._length += len(self._decoder.decode(self._names.bytes(token) or b""))
        return at


def chat_logprobs(names: TokenNames, entries: Sequence[TokenLogprob], top: int) -> ChatLogprobs:
    return ChatLogprobs([_chat_entry(names, entry, top) for entry in entries])


def _chat_entry(names: TokenNames, entry: TokenLogprob, top: int) -> ChatTokenLogprob:
    tops = [ChatTop(names.text(id), finite(value), _bytes(names, id)) for id, value in entry.top[:top]]
    id = entry.token_id
    return ChatTokenLogprob(names.text(id), finite(entry.logprob), _bytes(names, id), tops)


def _bytes(names: TokenNames, token: int) -> list[int] | None:
    data = names.bytes(token)
    return None if data is None else list(data)


def text_logprobs(
    names: TokenNames, offsets: Offsets, ids: Sequence[int], entries: Sequence[TokenLogprob | None], top: int
) -> TextLogprobs:
    """`entries[i]` belongs to `ids[i]`; the first token of a text has none. `top` alternatives each."""
    return TextLogprobs(
        tokens=[names.text(id) for id in ids],
        token_logprobs=[None if entry is None else finite(entry.logprob) for entry in entries],
        top_logprobs=[None if entry is None else _named(names, entry, top) for entry in entries],
        text_offset=[offsets.next(id) for id in ids],
    )


def _named(names: TokenNames, entry: TokenLogprob, top: int) -> dict[str, float]:
    """Tokens of one name (parts of a character may share one) keep the likelier value."""
    named: dict[str, float] = {}
    for id, value in entry.top[:top]:
        named.setdefault(names.text(id), finite(value))
    return named


def joined(first: TextLogprobs, second: TextLogprobs) -> TextLogprobs:
    return TextLogprobs(
        first.tokens + second.tokens,
        first.token_logprobs + second.token_logprobs,
        first.top_logprobs + second.top_logprobs,
        first.text_offset + second.text_offset,
    )


def prompt_logprobs(entries: Sequence[TokenLogprob | None], top: int) -> list[PromptLogprob | None]:
    return [
        None
        if entry is None
        else PromptLogprob(
            entry.token_id, finite(entry.logprob), [(id, finite(value)) for id, value in entry.top[:top]]
        )
        for entry in entries
    ]


def finite(value: float) -> float:
    return max(float(value), LOWEST)
