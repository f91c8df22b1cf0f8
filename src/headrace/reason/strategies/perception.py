"""Deduction from rule bases: what to look at first, and what to look at next."""

from __future__ import annotations

import re

from headrace.reason.horn import RuleBase, organised
from headrace.reason.run import Run
from headrace.reason.strategy import strategy
from headrace.spec.sampling import Sampling, Stop

SELECT = "{known}\n\nQuestion: is it true that {query}\nWhich statement helps next? Write its number alone."
INFER = "{known}\n\nFrom statement ({number}), what follows? Write one short sentence like 'Anne is red.'"


@strategy("cop", rule="vote", needs=("rules",), paper="2310.03309")
async def cop(run: Run, n: int = 1, depth: int = 32) -> None:
    """Concise and organised perception: only the premises the query may need, in the order of inference, one prompt."""
    rules: RuleBase = run.task.meta["rules"]
    kept = organised(rules.premises, rules.query, depth)
    run.journal.note("perceived", kept=kept, of=len(rules.premises))
    nodes = [await run.ask(rules.text(rules.premises[index] for index in kept))]
    if n > 1:
        nodes = nodes[0].fork(n)
    await run.extend_many(nodes)
    await run.finish(nodes)


@strategy("stepwise_selection", rule="first", needs=("rules",), paper="2205.09712")
async def stepwise_selection(run: Run, rounds: int = 3) -> None:
    """The model picks a statement and infers from it, round after round, then answers (Selection-Inference).

    A number that cannot be read ends the rounds; none is guessed.
    """
    rules: RuleBase = run.task.meta["rules"]
    root, inferred = await run.open(), list[str]()
    greedy = Sampling(temperature=0)
    for _ in range(rounds):
        told = [*rules.premises, *inferred]
        known = "\n".join(f"({place}) {text}" for place, text in enumerate(told, 1))
        number = _number(await _said(run, SELECT.format(known=known, query=rules.query), 4, greedy), len(told))
        if number is None or run.exhausted:
            break
        said = await _said(run, INFER.format(known=known, number=number), 16, greedy)
        if said:
            inferred.append(said)
    if inferred and not run.exhausted:
        root.drop()
        root = await run.ask(rules.text([*rules.premises, *inferred]))
    await run.extend_many([root])
    await run.finish([root])


async def _said(run: Run, prompt: str, tokens: int, sampling: Sampling) -> str:
    node = await run.ask(prompt)
    await run.extend_many([node], Stop(tokens=tokens, text=("\n",)), sampling)
    node.drop()
    return node.text.partition("\n")[0].strip()


def _number(text: str, most: int) -> int | None:
    match = re.fullmatch(r"\(?(\d+)\)?\.?", text)
    return int(match[1]) if match and 1 <= int(match[1]) <= most else None
