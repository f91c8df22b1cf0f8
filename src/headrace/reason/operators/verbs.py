"""The operators themselves: each opens a prompt made from its card, extends it and reads what was said.

Whatever one costs is paid from the run's purse, prompts included. Every use is noted in the trace with the card's
version and hash. An answer that cannot be read comes back as Unreadable, never as a middling value.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

from headrace.reason.node import Node
from headrace.reason.operators import reading
from headrace.reason.operators.card import Card, find_card
from headrace.reason.operators.reading import Unreadable, before_stop
from headrace.reason.run import Run

T = TypeVar("T")


async def critique(run: Run, answers: Sequence[str]) -> list[str | Unreadable]:
    """The first mistake of each answer in words, empty where the critic finds none."""
    return await _read_all(run, "critique", [_about(run, answer=answer.strip()) for answer in answers], reading.fault)


async def judge(run: Run, answers: Sequence[str]) -> list[float | Unreadable]:
    """A rating of each answer from 0 to 1."""
    return await _read_all(run, "judge", [_about(run, answer=answer.strip()) for answer in answers], reading.rating)


async def rank(run: Run, answers: Sequence[str]) -> list[int] | Unreadable:
    """Indices of the answers, best first."""
    asked = _about(run, answers=numbered(answers), count=len(answers))
    return (await _read_all(run, "rank", [asked], lambda text: reading.order(text, len(answers))))[0]


async def decompose(run: Run, most: int) -> list[str] | Unreadable:
    """At most `most` smaller questions whose answers lead to the task's."""
    found = (await _read_all(run, "decompose", [_about(run, most=most)], reading.items))[0]
    return found if isinstance(found, Unreadable) else found[:most]


async def listing(run: Run, kind: str, count: int) -> list[str] | Unreadable:
    """Examples of a kind, in lower case."""
    found = (await _read_all(run, "listing", [{"kind": kind, "count": count}], reading.words, plain=True))[0]
    return found if isinstance(found, Unreadable) else found[:count]


async def plan(run: Run, doubts: str = "") -> Node | Unreadable:
    """A plan without an answer, as the live node that wrote it: questions about it are its forks."""
    card = find_card("plan")
    (node,) = await _asked(run, card, [card.text(**_about(run, doubts=doubts))])
    if isinstance(found := _read(run, card, node, reading.prose), Unreadable):
        node.drop()
        return found
    return node


async def fuse(run: Run, answers: Sequence[str], remarks: Sequence[str] = ()) -> Node:
    """A live node whose text is one answer made from all of them; `remarks` of a critic stand beside them."""
    card = find_card("fuse")
    seen = numbered(answers, remarks)
    (node,) = await _asked(run, card, [card.text(**_about(run, answers=seen))])
    _note(run, card, "budget" if node.ending == "budget" else "read")
    return node


async def ask_yes_no(run: Run, nodes: Sequence[Node], questions: Sequence[str]) -> list[float | None]:
    """P(yes) / (P(yes) + P(no)) to one question behind each node, on a fork that shares its pages.

    None where the budget did not allow the question: no verdict, not an even one.
    """
    card = find_card("yes_no")
    looks = [node.fork(1)[0] for node in nodes]
    try:
        put = [await look.append(card.text(question=q)) for look, q in zip(looks, questions, strict=True)]
        found = await asyncio.gather(*(_yes(look, there) for look, there in zip(looks, put, strict=True)))
    finally:
        for look in looks:
            look.drop()
    for value in found:
        _note(run, card, "budget" if value is None else "read")
    return list(found)


async def _yes(look: Node, asked: bool) -> float | None:
    found = await look.score([" yes", " no"]) if asked else None
    if found is None:
        return None
    yes, no = (math.fsum(logprobs) for logprobs in found)
    return 1 / (1 + math.exp(min(no - yes, 700.0)))


def numbered(answers: Sequence[str], remarks: Sequence[str] = ()) -> str:
    said = [*remarks, *[""] * (len(answers) - len(remarks))]
    return "\n\n".join(
        f"({place}) {answer.strip()}" + (f"\nCritique of ({place}): {remark}" if remark else "")
        for place, (answer, remark) in enumerate(zip(answers, said, strict=True), 1)
    )


def _about(run: Run, **values: Any) -> dict[str, Any]:
    return {"question": run.task.question, **values}


async def _read_all(
    run: Run, name: str, asked: Sequence[Mapping[str, Any]], reader: Callable[[str], T | None], plain: bool = False
) -> list[T | Unreadable]:
    card = find_card(name)
    nodes = await _asked(run, card, [card.text(**values) for values in asked], plain)
    found = [_read(run, card, node, reader) for node in nodes]
    for node in nodes:
        node.drop()
    return found


async def _asked(run: Run, card: Card, texts: Sequence[str], plain: bool = False) -> list[Node]:
    """Live nodes that have answered; `plain` ones complete the text outside any chat template."""
    nodes = [await (run.open(text) if plain else run.ask(text)) for text in texts]
    warm = run.sampling if card.temperature is None else replace(run.sampling, temperature=card.temperature)
    await run.extend_many(nodes, card.ending if card.tokens else run.task.ending, warm)
    return nodes


def _read(run: Run, card: Card, node: Node, reader: Callable[[str], T | None]) -> T | Unreadable:
    text = before_stop(node.text, card.stop)
    if node.ending == "budget":
        why: Literal["budget", "context"] = "context" if len(node.tokens) > run.context else "budget"
        _note(run, card, why)
        return Unreadable(card.name, text, why)
    found = reader(text)
    _note(run, card, "unreadable" if found is None else "read")
    return Unreadable(card.name, text, "form") if found is None else found


def _note(run: Run, card: Card, outcome: str) -> None:
    run.journal.note("operator", name=card.name, version=card.version, hash=card.hash, outcome=outcome)
