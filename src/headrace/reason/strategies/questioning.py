"""A plan that is questioned before it is followed."""

from __future__ import annotations

from headrace.reason import operators
from headrace.reason.node import Node
from headrace.reason.operators import Unreadable
from headrace.reason.run import Run
from headrace.reason.strategy import strategy

QUESTIONS = (
    "Does the plan start from premises that are clearly stated?",
    "Are all of these premises given in the question or known to be true?",
    "Is no premise missing that the plan needs?",
    "Does each step follow from the premises and from earlier steps?",
    "Is it said why each step follows?",
    "Are exceptions and other readings of the question ruled out?",
    "Is the plan free of contradictions?",
    "Do the steps, taken together, lead to an answer to the question?",
)
"""After the parts of Toulmin's model of argument: claim, data, warrant, backing, qualifier, rebuttal (2412.15177)."""

FOLLOW = "{question}\n\nA plan:\n\n{plan}\n\nFollow the plan and give the complete answer."
DOUBTS = "\nAn earlier plan failed these questions, so write one that passes them:\n{failed}"


@strategy("critical_questions", rule="last", paper="2412.15177")
async def critical_questions(run: Run, passing: int = 7, tries: int = 3, sure: float = 0.5) -> None:
    """Plans, asks 8 fixed questions about the plan, plans again below `passing` yeses, answers.

    There are `tries` plans at most.

    A question passes where its probability of yes is above `sure`; one that the budget left unasked does not.
    """
    root, plan, doubts = await run.open(), "", ""
    for turn in range(tries):
        if run.exhausted:
            break
        node = await operators.plan(run, doubts)
        if isinstance(node, Unreadable):
            break
        plan = node.text.strip()
        failed = await doubted(run, node, turn, sure)
        node.drop()
        if len(QUESTIONS) - len(failed) >= passing:
            break
        doubts = DOUBTS.format(failed="\n".join(f"- {question}" for question in failed))
    if plan and not run.exhausted:
        follow = await run.ask(FOLLOW.format(question=run.task.question, plan=plan))
        if follow.ending is None:
            root.drop()
            root = follow
    await run.extend_many([root])
    await run.finish([root], origin="planned" if plan else "direct")


async def doubted(run: Run, node: Node, turn: int, sure: float) -> list[str]:
    """The questions that a plan fails. Every verdict is noted in the trace, with its probability."""
    found = await operators.ask_yes_no(run, [node] * len(QUESTIONS), QUESTIONS)
    failed = []
    for question, yes in zip(QUESTIONS, found, strict=True):
        passed = yes is not None and yes > sure
        run.journal.note("verdict", turn=turn, question=question, yes=yes, passed=passed)
        if not passed:
            failed.append(question)
    return failed
