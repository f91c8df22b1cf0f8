"""Everyday words by kind; each word is of one kind here."""

from __future__ import annotations

KINDS: dict[str, tuple[str, ...]] = {
    "fruit": ("apple", "banana", "cherry", "pear", "plum", "grape", "peach", "lemon"),
    "animal": ("horse", "tiger", "rabbit", "sheep", "wolf", "monkey", "camel", "goat"),
    "tool": ("hammer", "saw", "drill", "wrench", "shovel", "chisel", "screwdriver", "pliers"),
    "color": ("red", "blue", "yellow", "purple", "brown", "pink", "white", "black"),
    "vehicle": ("car", "truck", "bus", "bicycle", "tractor", "van", "motorcycle", "train"),
    "musical instrument": ("piano", "violin", "flute", "guitar", "trumpet", "drum", "harp", "cello"),
    "drink": ("coffee", "tea", "milk", "beer", "wine", "juice", "lemonade", "whiskey"),
    "country": ("France", "Brazil", "Japan", "Canada", "Egypt", "Norway", "Mexico", "India"),
}

KIND_OF = {word: kind for kind, members in KINDS.items() for word in members}

FACTS: dict[str, str] = {
    "fruit": "grows on a plant and can be eaten",
    "animal": "breathes and eats to stay alive",
    "tool": "is used by workers to build and repair",
    "vehicle": "carries people along a road",
    "musical instrument": "is played to make music",
    "drink": "is poured into a cup or a glass",
}
"""What is true of everything of a kind and of nothing of the others."""
