"""The strategy that chooses a strategy."""

from __future__ import annotations

import asyncio

from headrace.reason.allocator import STAY, difficulty, table_named
from headrace.reason.run import Run
from headrace.reason.strategies.sampling import attempts
from headrace.reason.strategy import parse, strategy


@strategy("auto", rule="vote", paper="2408.03314")
async def auto(run: Run, table: str = "default") -> None:
    """A few attempts show how hard the question is; a table says what follows, and they are its first candidates."""
    chosen = table_named(table, run.scored)
    nodes = await attempts(run, await run.open(), chosen.probe)
    if run.scored:
        await run.scores(nodes)
        run.rule = "weighted"
    hard = await asyncio.to_thread(difficulty, await run.finish(nodes, origin="probe"), run.task.answers)
    plan = chosen.plan(hard)
    run.journal.note("chosen", difficulty=hard, plan=plan)
    if plan != STAY and not run.exhausted:
        await parse(plan).run(run)
