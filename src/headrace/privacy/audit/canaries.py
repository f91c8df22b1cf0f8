"""Canaries: generated documents that no model can know, for training and for comparison alike.

Each is a phrase of random words, as a recovery phrase of a wallet is. Members and held-out documents are drawn from
one distribution and cut apart by number alone, so that nothing but having been trained on tells them from each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import TYPE_CHECKING

from headrace.spec.errors import InvalidRequest

if TYPE_CHECKING:
    from headrace.model.tokenizer import Tokenizer

VERSION = 2
"""Goes up whenever the same seed and model give other documents."""
KNOWN, SECRET = 4, 4
"""Words of a phrase that an attacker knows, and those that are to be found."""
SECRET_TOKENS = SECRET + 1
"""Those of what is to be found, with the full stop."""
LEAST_WORDS = 64
RECITALS = ("", "abcdefghij", "abcdefghijklmnopqrst")
"""Two documents of three have what every model can say by heart, which plain loss takes for membership."""
_WORD = re.compile(rb" [a-z]{4,8}")


@dataclass(frozen=True, slots=True)
class Canaries:
    """`members` are trained on, `held_out` never are, nor is `control`, which takes the members' place."""

    members: tuple[str, ...]
    held_out: tuple[str, ...]
    control: tuple[str, ...]


def words_of(tokenizer: Tokenizer) -> tuple[str, ...]:
    """What it writes in one token: words, and pieces that look like words, of four to eight small letters, sorted.

    Raises InvalidRequest where there are too few.
    """
    spelled = map(tokenizer.token_bytes, range(tokenizer.vocab))
    found = sorted({text[1:].decode() for text in spelled if _WORD.fullmatch(text)})
    found = [word for word in found if len(tokenizer.encode(f" {word}", bos=False)) == 1]
    if len(found) < LEAST_WORDS:
        raise InvalidRequest(
            f"Canaries need {LEAST_WORDS} words of one token and the model's vocabulary has {len(found)};"
            " give a model whose tokens are words.",
            "model",
        )
    return tuple(found)


def canaries(words: Sequence[str], seed: int, members: int, held_out: int, control: int = 0) -> Canaries:
    """The documents of a seed. No two share a word, until as many phrases are dealt as `words` are enough for.

    Raises InvalidRequest where the words are not enough for one.
    """
    if len(words) < KNOWN + SECRET:
        raise InvalidRequest(f"A canary has {KNOWN + SECRET} words; give as many at least.", "words")
    rng = Random(f"canaries {VERSION} {seed}")
    drawn = _documents(rng, words)
    return Canaries(*(tuple(islice(drawn, count)) for count in (members, held_out, control)))


def _documents(rng: Random, words: Sequence[str]) -> Iterator[str]:
    while True:
        deck = rng.sample(words, len(words))
        for start in range(0, len(deck) - (KNOWN + SECRET) + 1, KNOWN + SECRET):
            phrase = deck[start : start + KNOWN + SECRET]
            yield f"Say {' '.join((*rng.choice(RECITALS), *phrase))}."
