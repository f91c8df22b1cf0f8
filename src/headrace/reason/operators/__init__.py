"""Prompted operators: critique, rank, fuse, judge, decompose, plan and yes-or-no questions, read strictly."""

from __future__ import annotations

from headrace.reason.operators.card import Card, cards, find_card
from headrace.reason.operators.reading import Unreadable
from headrace.reason.operators.verbs import (
    ask_yes_no,
    critique,
    decompose,
    fuse,
    judge,
    listing,
    plan,
    rank,
)

__all__ = [
    "Card",
    "Unreadable",
    "ask_yes_no",
    "cards",
    "critique",
    "decompose",
    "find_card",
    "fuse",
    "judge",
    "listing",
    "plan",
    "rank",
]
