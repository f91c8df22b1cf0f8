"""Making worked examples: the model solves questions whose answers are known, and keeps what it got right."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from headrace.engine.surface import Surface
from headrace.reason.choices import Options
from headrace.reason.solve import Order, solve
from headrace.reason.tasks.posed import Posed
from headrace.reason.worked import Worked

STRATEGY = "medprompt(few_shot=False, n=1, shuffle=False)"


async def worked_out(engine: Surface, posed: Sequence[Posed], order: Order) -> list[Worked]:
    """One attempt with a chain of thought at each question; those whose answer is the known one, with their chain."""
    once = replace(order, strategy=STRATEGY)
    found = await asyncio.gather(*(solve(engine, item.task, once) for item in posed))
    kept = []
    for item, result in zip(posed, found, strict=True):
        asked: Options = item.task.meta["choices"]
        if item.right(result.answer):
            chain = result.text.rpartition("Answer:")[0].strip()
            kept.append(Worked(asked.stem, asked.options, item.gold, chain))
    return kept
