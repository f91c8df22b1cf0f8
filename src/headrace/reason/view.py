"""Views of a trace: the search tree, and pairs of a good and a bad continuation of the same beginning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from headrace.reason.answers import Text, answer_space
from headrace.reason.choose import groups
from headrace.spec.errors import InvalidRequest
from headrace.spec.reasoning import AnswerSpace
from headrace.spec.trace import Event, Trace


@dataclass(slots=True)
class Branch:
    """A node of the tree. `text` is what it added to its parent's; `state`: open, kept, ended or dropped."""

    id: str
    text: str = ""
    tokens: int = 0
    score: float | None = None
    answer: str | None = None
    finished: bool = False
    kids: list[Branch] = field(default_factory=list)


class Tree:
    """Grows by one event at a time."""

    def __init__(self) -> None:
        self.roots: list[Branch] = []
        self.best: str | None = None
        self.tokens = 0
        self._by_id: dict[str, Branch] = {}
        self._candidates: dict[int, str] = {}

    @classmethod
    def of(cls, trace: Trace) -> Tree:
        tree = cls()
        for event in trace.events:
            tree.add(event)
        return tree

    def add(self, event: Event) -> None:
        data = event.data
        if event.kind == "open":
            self._place(event.node, None)
        elif event.kind == "fork":
            parent = self._by_id[event.node]
            for _ in data["paths"]:
                self._place(f"{event.node}.{len(parent.kids)}", parent)
        elif event.kind in ("extend", "append"):
            branch = self._by_id[event.node]
            branch.text += data["text"] if not data["text"].startswith("\0") else "…"
            branch.tokens += len(data["tokens"])
            self.tokens += len(data["tokens"])
        elif event.kind == "scores":
            for node, value in zip(data["asked"], data["values"], strict=True):
                self._by_id[node].score = value
        elif event.kind == "candidate":
            (node,) = data["asked"]
            self._by_id[node].answer, self._by_id[node].finished = data["answer"], data["finished"]
            self._candidates[len(self._candidates)] = node
        elif event.kind == "best":
            self.best = self._candidates[data["candidate"]]

    def votes(self, space: AnswerSpace) -> dict[str, int]:
        """How many finished candidates gave the answer that a branch has, by its id; those without one are left out."""
        ended = [branch for branch in self._by_id.values() if branch.finished and branch.answer is not None]
        leads = groups([branch.answer for branch in ended], space)
        counts = Counter(leads)
        return {branch.id: counts[lead] for branch, lead in zip(ended, leads, strict=True)}

    def _place(self, id: str, parent: Branch | None) -> None:
        branch = self._by_id[id] = Branch(id)
        (self.roots if parent is None else parent.kids).append(branch)


def preferences(trace: Trace) -> Iterator[dict[str, Any]]:
    """For each node on the way to the best candidate that has a sibling: the context, it, and each worse sibling.

    A sibling is worse by a lower score or, where not both have one, if it ended with an answer that fewer
    candidates gave than the best one's: what only came second in a tie is not. No pair crosses branches
    (TP-LLaMA, 2406.07115).
    """
    tree = Tree.of(trace)
    if tree.best is None:
        return
    question, votes = str(trace.header["question"]), tree.votes(_space(trace.header["answers"]))

    def worse(other: Branch, chosen: Branch) -> bool:
        if other.score is not None and chosen.score is not None:
            return other.score < chosen.score
        return other.finished and votes.get(other.id, 0) < votes.get(str(tree.best), 0)

    def walk(branch: Branch, context: str) -> Iterator[dict[str, Any]]:
        here = context + branch.text
        ahead = [kid for kid in branch.kids if tree.best == kid.id or str(tree.best).startswith(f"{kid.id}.")]
        for kid in ahead:
            for other in branch.kids:
                if other is not kid and other.text.strip() and other.text != kid.text and worse(other, kid):
                    yield {"prompt": question, "context": here, "chosen": kid.text, "rejected": other.text}
            yield from walk(kid, here)

    for root in tree.roots:
        if tree.best == root.id or tree.best.startswith(f"{root.id}."):
            yield from walk(root, "")


def _space(name: str) -> AnswerSpace:
    """That of the run; one without a name, which no trace holds, is taken for text."""
    try:
        return answer_space(name)
    except InvalidRequest:
        return Text()
