"""Attempts that look back at earlier ones."""

from __future__ import annotations

from headrace.reason.operators import reading
from headrace.reason.run import Run
from headrace.reason.strategies.sampling import attempts
from headrace.reason.strategy import strategy

AGAIN = "{question}\n\nEarlier attempts, which may be wrong:\n\n{attempts}\n\nNow give a better and complete answer."
CRITIQUE = (
    "{question}\n\nAn attempt:\n\n{attempt}\n\nName the first mistake in it in one sentence, or write 'No mistake'."
)
REVISE = (
    "{question}\n\nAn attempt:\n\n{attempt}\n\nA critique of it: {critique}\n\nGive the corrected, complete answer."
)


@strategy("sequential_revision", rule="vote", paper="2408.03314")
async def sequential_revision(run: Run, rounds: int = 4, chains: int = 1, memory: int = 4) -> None:
    """Chains of attempts, each of which sees up to `memory` earlier ones of its chain."""
    first = await attempts(run, await run.open(), max(chains, 1))
    made = await run.finish(first, origin="first")
    texts = [[candidate.text] for candidate in made]
    for _ in range(rounds - 1):
        if run.exhausted:
            return
        nodes = []
        for chain in texts:
            seen = "\n\n".join(f"({place + 1}) {text.strip()}" for place, text in enumerate(chain[-memory:]))
            nodes.append(await run.ask(AGAIN.format(question=run.task.question, attempts=seen)))
        await run.extend_many(nodes)
        for chain, candidate in zip(texts, await run.finish(nodes, origin="revision"), strict=True):
            chain.append(candidate.text)


@strategy("critique_and_revise", rule="last", paper="2303.17651")
async def critique_and_revise(run: Run, rounds: int = 2) -> None:
    """An attempt, a critique of it, a corrected attempt, and so on; ends when the critic finds no mistake."""
    root = await run.open()
    await run.extend_many([root])
    (candidate,) = await run.finish([root], origin="first")
    for _ in range(rounds):
        if run.exhausted:
            return
        critic = await run.ask(CRITIQUE.format(question=run.task.question, attempt=candidate.text.strip()))
        await run.extend_many([critic])
        critique = reading.fault(critic.text)
        critic.drop()
        if not critique:
            return
        text = REVISE.format(question=run.task.question, attempt=candidate.text.strip(), critique=critique)
        node = await run.ask(text)
        await run.extend_many([node])
        (candidate,) = await run.finish([node], origin="revision")


@strategy("rewind_first_bad", rule="score", needs=("scorer",))
async def rewind_first_bad(run: Run, tries: int = 8, threshold: float = 0.5) -> None:
    """One attempt, scored at every step; goes back one step where the score falls below the threshold."""
    node = await run.open()
    while node.ending is None:
        mark, before = node.mark(), len(node.steps)
        await run.step([node])
        (value,) = await run.scores([node])
        if value < threshold and tries > 0 and not run.exhausted:
            tries -= 1
            node.rewind(mark)
            del node.steps[before:]
    await run.finish([node])
