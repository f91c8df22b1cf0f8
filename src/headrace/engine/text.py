"""From tokens to text: whole characters only, stop strings found and held back."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Protocol


class ByteVocabulary(Protocol):
    def token_bytes(self, token: int) -> bytes: ...


class TextStream:
    """Turns the tokens of one extend into text that is safe to show.

    A character is shown when all its bytes are there; text that may become a stop string is held
    back until it is clear that it does not. `before`: the tokens ahead, whose last character may be open.
    """

    def __init__(
        self, vocabulary: ByteVocabulary, stops: Sequence[str], before: Sequence[int], include: bool = False
    ) -> None:
        self._vocabulary = vocabulary
        self._stops = tuple(stops)
        self._include = include
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._feed_open_character(before)
        self._held = ""
        self.text = ""
        self.matched: str | None = None

    def push(self, token: int) -> str:
        """The text that becomes showable with this token. After a stop string matched, nothing more."""
        if self.matched is not None:
            return ""
        self._held += self._decoder.decode(self._vocabulary.token_bytes(token))
        return self._show(self._cut_at_stop() if self._stops else len(self._held))

    def finish(self) -> str:
        """The rest that was held back; an incomplete character stays unshown."""
        return "" if self.matched is not None else self._show(len(self._held))

    def _show(self, end: int) -> str:
        shown, self._held = self._held[:end], self._held[end:]
        self.text += shown
        return shown

    def _cut_at_stop(self) -> int:
        """Where showable text ends: at the earliest stop string, else before what may become one."""
        found = [(self._held.find(stop), stop) for stop in self._stops if stop in self._held]
        if found:
            at, self.matched = min(found, key=lambda hit: (hit[0], -len(hit[1])))
            return at + len(self.matched) if self._include else at
        longest = max(len(stop) for stop in self._stops) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            tail = self._held[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return len(self._held) - length
        return len(self._held)

    def _feed_open_character(self, before: Sequence[int]) -> None:
        recent = b"".join(self._vocabulary.token_bytes(token) for token in before[-4:])
        for back in range(1, min(len(recent), 3) + 1):
            lead = recent[-back]
            if lead >= 0xC0:
                expected = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
                if back < expected:
                    self._decoder.decode(recent[-back:])
                return
            if lead < 0x80:
                return
