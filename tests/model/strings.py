"""Generated strings of all scripts, emoji, control characters, code and white space; the same for a seed."""

from __future__ import annotations

import random
import sys
import unicodedata

_BLOCKS = (
    (0x20, 0x7E), (0xA0, 0xFF), (0x100, 0x24F), (0x250, 0x2AF), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF),
    (0x530, 0x58F), (0x590, 0x5FF), (0x600, 0x6FF), (0x700, 0x74F), (0x900, 0x97F), (0x980, 0x9FF), (0xA00, 0xA7F),
    (0xB80, 0xBFF), (0xC00, 0xC7F), (0xD00, 0xD7F), (0xE00, 0xE7F), (0xF00, 0xFFF), (0x1000, 0x109F),
    (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1200, 0x137F), (0x13A0, 0x13FF), (0x1780, 0x17FF), (0x1800, 0x18AF),
    (0x1E00, 0x1EFF), (0x2000, 0x206F), (0x2070, 0x209F), (0x20A0, 0x20CF), (0x2100, 0x214F), (0x2190, 0x21FF),
    (0x2200, 0x22FF), (0x2500, 0x257F), (0x2600, 0x26FF), (0x2700, 0x27BF), (0x3000, 0x303F), (0x3040, 0x309F),
    (0x30A0, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFAFF), (0xFE00, 0xFE0F), (0xFF00, 0xFFEF),
    (0x10000, 0x1007F), (0x10330, 0x1034F), (0x1D400, 0x1D7FF), (0x1F300, 0x1F5FF), (0x1F600, 0x1F64F),
    (0x1F680, 0x1F6FF), (0x1F900, 0x1F9FF), (0x20000, 0x2A6DF), (0xE0100, 0xE01EF),
)  # fmt: skip
_WORDS = (
    "the The HELLO world's don't I'LL we've Straße naïve café 東京 안녕하세요 привет мир مرحبا שלום नमस्ते สวัสดี γειά "
    "12345 3.14159 1,000,000 ٣٤٥ ½ x² def f(x): return {x:>10} self.__init__ https://example.org/a?b=c&d=%20 foo_bar "
    "camelCase HTTPServer <b>bold</b> \\n \\t ### --- ... !!! ?! \"quoted\" 'single' 👩‍👩‍👧‍👦 🇫🇷 🏳️‍🌈 "
    "👍🏽 ❤️ é e\u0301 ﬁ Ⅷ"
).split()
_SPACES = (
    " ", "  ", "   ", "    ", "\n", "\n\n", "\r\n", "\t", " \n", "\u00a0", "\u3000", "\u200b", "\u2028", "\x0b", "\x85",
)  # fmt: skip
_CONTROL = tuple(map(chr, [*range(1, 32), 127, *range(0x80, 0xA0), 0xAD, 0x200D, 0xFEFF, 0xFFFD]))


def strings(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return ["", " ", "a", *(_string(rng) for _ in range(count - 3))]


def _string(rng: random.Random) -> str:
    return "".join(_piece(rng) for _ in range(rng.randint(1, 14)))


def _piece(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(("", " ", " ")) + rng.choice(_WORDS)
    if kind < 0.55:
        return rng.choice(_SPACES)
    if kind < 0.62:
        return rng.choice(_CONTROL)
    if kind < 0.7:
        return "".join(rng.choice("0123456789") for _ in range(rng.randint(1, 9)))
    if kind < 0.95:
        low, high = rng.choice(_BLOCKS)
        return "".join(_assigned(rng, low, high) for _ in range(rng.randint(1, 6)))
    return _assigned(rng, 1, sys.maxunicode)


def _assigned(rng: random.Random, low: int, high: int) -> str:
    """A character that Unicode has assigned; tables of different ages agree on those."""
    while True:
        character = chr(rng.randint(low, high))
        if unicodedata.category(character) not in ("Cn", "Cs"):
            return character
