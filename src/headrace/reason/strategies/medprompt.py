"""Medprompt (2311.16452): worked examples, chains of thought and shuffled options, each of which can be left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from random import Random

from headrace.engine.surface import Prompt
from headrace.reason.choices import Options, Order, orders
from headrace.reason.run import Run
from headrace.reason.strategy import strategy
from headrace.reason.task import Task
from headrace.reason.worked import Examples, Worked
from headrace.spec.errors import InvalidRequest

CHAIN = "\n\nThink step by step, briefly. End with 'Answer: ' and the letter."
PLAIN = "\n\nWrite 'Answer: ' and the letter, nothing else."


@strategy("medprompt", rule="vote", needs=("choices",), paper="2311.16452")
async def medprompt(
    run: Run, examples: int = 3, n: int = 4, few_shot: bool = True, chain: bool = True, shuffle: bool = True
) -> None:
    """n attempts behind the nearest worked examples, each with its options in another order; the vote decides.

    `few_shot` off is for models that were trained to reason, which examples make worse. A candidate's answer is
    the letter of the option in the task's own order; its text has the letter that was shown.
    """
    asked: Options = run.task.meta["choices"]
    shown = _nearest(run, asked, examples if few_shot else 0)
    chosen = orders(len(asked.options), n, Random(f"{run.seed}/options")) if shuffle else []
    if chosen:
        run.journal.note("shuffled", orders=[list(order) for order in chosen])
        nodes = [await run.open(prompted(run.task, shown, asked.text(order), chain)) for order in chosen]
    else:
        chosen = [tuple(range(len(asked.options)))] * n
        nodes = (await run.open(prompted(run.task, shown, asked.text(), chain), ahead=True)).fork(n)
    await run.extend_many(nodes)
    for node, order in zip(nodes, chosen, strict=True):
        await run.finish([node], read=partial(_restored, run, asked, order))


def _nearest(run: Run, asked: Options, count: int) -> list[Worked]:
    if count == 0:
        return []
    known = run.task.meta.get("examples")
    if not isinstance(known, Examples):
        raise InvalidRequest(
            "The task has no worked examples; give some, or use medprompt(few_shot=False).", "strategy"
        )
    return known.nearest(asked.stem, count)


def _restored(run: Run, asked: Options, order: Order, text: str) -> str | None:
    return asked.unshuffled(run.task.answers.extract(text), order)


def prompted(task: Task, shown: Sequence[Worked], question: str, chain: bool) -> Prompt:
    """The question behind worked examples: as earlier turns of a chat, or as text before it."""
    words = CHAIN if chain else PLAIN
    turns: list[Mapping[str, str]] = []
    for item in shown:
        said = f"{item.chain}\n" if chain and item.chain else ""
        turns.append({"role": "user", "content": item.question + words})
        turns.append({"role": "assistant", "content": f"{said}Answer: {item.answer}"})
    prompt = task.prompt(question + words)
    if not isinstance(prompt, str):
        return [*prompt[:-1], *turns, *prompt[-1:]]
    return "".join(turn["content"] + "\n\n" for turn in turns) + prompt + "\n\n"


@strategy("likeliest_choice", rule="first", needs=("choices",))
async def likeliest_choice(run: Run) -> None:
    """One look at the probabilities of the letters behind the question: direct prompting without a word drawn."""
    asked: Options = run.task.meta["choices"]
    root = await run.open(run.task.prompt(asked.text()))
    found = await root.score([f" {letter}" for letter in asked.letters]) if await root.append("Answer:") else None
    if found is not None:
        sums = [sum(logprobs) for logprobs in found]
        await root.append(f" {asked.letters[sums.index(max(sums))]}")
    await run.finish([root])
