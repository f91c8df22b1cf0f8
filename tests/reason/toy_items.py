"""Questions for the toy engine: right is any answer of one digit, and one digit is as good as another."""

from __future__ import annotations

from dataclasses import replace

from headrace.reason.tasks.item import Item
from headrace.spec.sampling import Stop
from reason.toy import TASK


def one_digit(answer: str) -> bool:
    return len(answer) == 1


def toy_items(count: int, tokens: int = 24) -> list[Item]:
    ending = Stop(tokens=tokens)
    return [
        Item(f"toy/{k}", replace(TASK, question=f"{k} + 5 = ?", ending=ending), None, one_digit) for k in range(count)
    ]
