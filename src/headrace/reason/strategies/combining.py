"""Strategies that go on with the candidates before them: `self_consistency(n=8) | rank(top=3) | fuse`.

With none before them they draw their own. A candidate that has been set aside stays, with weight 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.reason import operators
from headrace.reason.operators import Unreadable
from headrace.reason.run import Run
from headrace.reason.strategies.sampling import attempts
from headrace.reason.strategy import strategy
from headrace.spec.reasoning import Candidate

STEP = "{question}\n\nTo answer it, first answer this smaller question alone, in one sentence: {part}{known}"
WHOLE = "{question}\n\nWhat is known already:\n\n{known}\n\nNow give the complete answer to the question at the top."


async def given(run: Run, n: int) -> list[Candidate]:
    """The candidates that still have weight; `n` fresh ones where there are none."""
    if not run.candidates:
        await run.finish(await attempts(run, await run.open(), max(n, 1)))
    return [candidate for candidate in run.candidates if candidate.weight > 0]


@strategy("rank", rule="score", paper="2409.15254")
async def rank(run: Run, n: int = 4, top: int = 1) -> None:
    """Puts the candidates in the model's order of preference and sets all but the first `top` aside.

    Where the order cannot be read, the vote decides as before: no order is made up from length or place.
    """
    run.rule = "vote"
    pool = await given(run, n)
    if len(pool) < 2 or run.exhausted:
        return
    order = await operators.rank(run, [candidate.text for candidate in pool])
    if isinstance(order, Unreadable):
        return
    for place, index in enumerate(order):
        pool[index].score = 1 - place / len(order)
        pool[index].weight = 1.0 if place < max(top, 1) else 0.0
    run.rule = "score"


@strategy("rate", rule="score")
async def rate(run: Run, n: int = 4) -> None:
    """Rates every candidate from 0 to 10; one whose rating cannot be read has none and never wins by it."""
    run.rule = "vote"
    pool = await given(run, n)
    found = [] if run.exhausted else await operators.judge(run, [candidate.text for candidate in pool])
    for candidate, rating in zip(pool, found, strict=False):
        candidate.score = None if isinstance(rating, Unreadable) else rating
    if any(candidate.score is not None for candidate in pool):
        run.rule = "score"


@strategy("critique", rule="vote", paper="2409.15254")
async def critique(run: Run, n: int = 4) -> None:
    """Has every candidate criticised and sets those with a mistake aside, unless all have one. `fuse` reads it."""
    pool = await given(run, n)
    found = [] if run.exhausted else await operators.critique(run, [candidate.text for candidate in pool])
    for candidate, remark in zip(pool, found, strict=False):
        if not isinstance(remark, Unreadable):
            candidate.remark = remark
    if all(candidate.remark for candidate in pool):
        return
    for candidate in pool:
        candidate.weight = 0.0 if candidate.remark else 1.0


@strategy("fuse", rule="last", paper="2409.15254")
async def fuse(run: Run, n: int = 4) -> None:
    """One new answer from all candidates; the vote among them where it gives none."""
    run.rule = "vote"
    pool = await given(run, n)
    if run.exhausted:
        return
    node = await operators.fuse(run, [c.text for c in pool], [c.remark for c in pool])
    cut = node.ending == "budget"
    (fused,) = await run.finish([node], origin="fused")
    if fused.answer is not None and not cut:
        run.rule = "last"


@strategy("decompose", rule="last", paper="2205.10625")
async def decompose(run: Run, most: int = 4) -> None:
    """Smaller questions, each answered with what is known by then, and last the whole one."""
    root = await run.open()
    parts = await operators.decompose(run, max(most, 1))
    known = await _answered(run, [] if isinstance(parts, Unreadable) else parts)
    if known and not run.exhausted:
        whole = await run.ask(WHOLE.format(question=run.task.question, known="\n".join(known)))
        if whole.ending is None:
            root.drop()
            root = whole
    await run.extend_many([root])
    await run.finish([root], origin="decomposed" if known else "direct")


async def _answered(run: Run, parts: Sequence[str]) -> list[str]:
    known: list[str] = []
    for part in parts:
        if run.exhausted:
            break
        told = "\n\nWhat is known already:\n\n" + "\n".join(known) if known else ""
        node = await run.ask(STEP.format(question=run.task.question, part=part, known=told))
        await run.extend_many([node])
        said = " ".join(node.text.split())
        node.drop()
        if said and node.ending != "budget":
            known.append(f"{part} {said}")
    return known
