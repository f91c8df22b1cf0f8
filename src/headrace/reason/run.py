"""One run of a strategy: its tree of sequences, its candidates, and the best of them so far."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from headrace.engine.sequence import Place
from headrace.engine.surface import Prompt, Surface
from headrace.reason.account import Amount
from headrace.reason.choose import Best, best_of
from headrace.reason.journal import Journal
from headrace.reason.node import REFUSED, Drawn, Node
from headrace.reason.purse import Purse
from headrace.reason.task import Task
from headrace.reason.together import together
from headrace.spec.errors import HeadraceError, InvalidRequest, Overloaded, PagesExhausted
from headrace.spec.reasoning import Candidate, Scored, Scorer
from headrace.spec.sampling import Sampling, Stop

Read: TypeAlias = Callable[[str], str | None]

REFUSALS = (Overloaded, PagesExhausted)
"""What the engine may have for one sequence and not for its siblings; a stopped engine is no refusal."""


@dataclass
class Run:
    """What a strategy sees. Whatever it does is paid from `purse` and written to `journal`.

    `engine` None: a replay, in which nothing can run that the journal does not have.
    `rule` says which candidate is the best so far. `identity`: principal, sharing and adapter of its sequences.
    """

    engine: Surface | None
    context: int
    task: Task
    purse: Purse
    journal: Journal
    seed: int
    sampling: Sampling = field(default_factory=Sampling)
    scorer: Scorer | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)
    rule: Best = "first"
    scored: bool = False
    """Whether the run has a scorer; in a replay, whether it had one."""
    sound: bool = False
    """Whether that scorer's 1 is a proof."""
    candidates: list[Candidate] = field(default_factory=list)
    live: dict[str, Node] = field(default_factory=dict)
    aside: bool = False
    """Whether a scorer is at work: its own sequences are paid for, but no part of the tree."""
    looks: int = 0
    whole: bool = False
    """Whether a refused attempt ends the run: where what is left would be no fair sample of the strategy."""
    refused: set[str] = field(default_factory=set)
    """Nodes whose extend the engine refused; they cast no vote."""

    def __post_init__(self) -> None:
        self._opened = self._scored = self._asked = 0
        self._shown: int | None = None

    # -- sequences ---------------------------------------------------------------------------------

    async def open(self, prompt: Prompt | None = None, ahead: bool = False) -> Node:
        """A new root: the task's own prompt, or another. The first draws with the run's seed itself.

        The task's own is computed now, so that forks share it; another one too where it is asked for `ahead`.
        Raises ContextExceeded for the first; a later one that does not fit the context has ended.
        """
        node = self._root()
        given = self.task.prompt() if prompt is None else prompt
        asked = [_digest(given)]
        data = node.recorded("open", asked)
        if data is None:
            tokens = await asyncio.to_thread(self.running().encode, given)
            if node.id == "0":
                self.running()._check_length(len(tokens))
            fits = len(tokens) <= self.context
            data = {"tokens": tokens, **(await self.purse.prefill(node.id, 0, len(tokens)) if fits else REFUSED)}
            node.record("open", asked, data)
            node.begin(data)
            if prompt is None or ahead:  # others are computed with their extend
                await node.prefill()
        else:
            node.begin(data)
        return node

    async def ask(self, text: str) -> Node:
        """A root that puts another text than the task's question, in the task's form."""
        return await self.open(self.task.prompt(text))

    def _root(self) -> Node:
        if self.aside:
            self.looks += 1
            return Node(self, f"aside{self.looks}", Place(0), None)
        name = str(self._opened)
        self._opened += 1
        return Node(self, name, Place(self.seed if name == "0" else _derived(self.seed, name)), None)

    async def extend_many(
        self, nodes: Sequence[Node], stop: Stop | None = None, sampling: Sampling | None = None
    ) -> list[Drawn]:
        """Extends a frontier together; those that have ended draw nothing.

        One that the engine refuses ends as if cut, and the others go on. Raises the refusal where nothing is left.
        """
        return await self._frontier([(node, stop) for node in nodes], sampling, self.whole)

    async def step(self, nodes: Sequence[Node], sampling: Sampling | None = None, whole: bool = False) -> None:
        """One step of every node that has not ended, within what the task allows for a whole attempt.

        `whole`: raises the first refusal, where the others alone would mean something else.
        """
        await self._frontier([(node, self._step_of(node)) for node in nodes], sampling, self.whole or whole)
        for node in nodes:
            node.end_where(self.task.ending)

    async def _frontier(
        self, asked: Sequence[tuple[Node, Stop | None]], sampling: Sampling | None, whole: bool
    ) -> list[Drawn]:
        refusals: dict[str, HeadraceError] = {}

        async def extended(node: Node, stop: Stop | None) -> Drawn:
            name = f"{node.id}@{len(node.tokens)}"
            if self.journal.recorded("refused", name, 0, []) is not None:
                return self._refuse(node)
            try:
                return await node.extend(stop, sampling)
            except REFUSALS as refusal:
                refusals[name] = refusal
                return self._refuse(node)

        drawn = await together(extended(node, stop) for node, stop in asked)
        if refusals and (whole or (len(refusals) == len(asked) and not self.candidates)):
            raise next(iter(refusals.values()))
        for name, refusal in refusals.items():  # only now: a run that goes on from its trace may ask again
            self.journal.record("refused", name, 0, [], {"why": str(refusal)})
        return drawn

    def _refuse(self, node: Node) -> Drawn:
        node.ending = "budget"
        self.refused.add(node.id)
        self.purse.account.count("refused", 1)
        return Drawn([], "", "budget", [], [])

    def _step_of(self, node: Node) -> Stop:
        most, whole = self.task.step.tokens, self.task.ending.tokens
        bounds = [bound for bound in (most, None if whole is None else max(whole - node.drawn, 0)) if bound is not None]
        return replace(self.task.step, tokens=min(bounds, default=None))

    @property
    def exhausted(self) -> bool:
        """Whether some bound has refused or cut a verb, or the time is over: what there is must do."""
        account = self.purse.account
        if account.exhausted:
            return True
        self._asked += 1
        name = f"clock{self._asked}"
        if self.journal.recorded("overdue", name, 0, []) is None:
            if not account.overdue():
                return False
            self.journal.record("overdue", name, 0, [], {})  # a replay has no clock
        account.stop("seconds")
        return True

    def running(self) -> Surface:
        if self.engine is None:
            raise InvalidRequest("The trace ends here and no model is loaded; resume it with its model.", "trace")
        return self.engine

    # -- scores and candidates ---------------------------------------------------------------------

    async def scores(self, nodes: Sequence[Node], note: bool = True) -> list[float]:
        """The scorer's value of each node's text so far, 0 where the budget ended; `note`: as its newest step's."""
        self._scored += 1
        name, asked = f"scoring{self._scored}", [node.id for node in nodes]
        data = self.journal.recorded("scores", name, 0, asked)
        if data is None:
            data = await self._score(nodes)
            self.journal.record("scores", name, 0, asked, data)
        else:
            self.purse.book(data)
            self.purse.account.hold(data["pages"])
            self.purse.account.hold(-data["pages"])
        self.purse.account.count("scorer_tokens", data["drawn"])
        self.purse.account.count("scorer_prefill", data["prefill"])
        values: list[float] = list(data["values"])
        for node, value in zip(nodes, values, strict=True):
            node.value = value
            if note:
                node.steps.append(value)
        return values

    async def _score(self, nodes: Sequence[Node]) -> dict[str, Any]:
        if self.scorer is None:
            raise InvalidRequest("This strategy needs a scorer; give one with --scorer.", "scorer")
        account = self.purse.account
        before = replace(account.spend)

        def fit() -> tuple[Amount, str | None]:
            free = int(min(account.left("calls"), len(nodes)))
            return Amount(calls=free), "calls" if free < len(nodes) else None

        reserved, cut = await account.reserve(fit)
        account.settle(reserved, reserved)  # before the scorer's own verbs, which wait for what is unsettled
        if cut is not None:
            account.stop(cut)
        self.aside, seen = True, dict[str, int]()
        try:
            question, meta = self.task.question, self.task.meta
            some = nodes[: reserved.calls]
            items = [Scored(question, node.text, node.ending is not None, node, meta) for node in some]
            with account.passing(seen):
                values = [float(score.value) for score in await self.scorer.score(items)]
            _check(values, len(items), self.scorer.name)
        finally:
            self.aside = False
        spent = account.spend
        costs = {"drawn": spent.tokens - before.tokens, "prefill": spent.prefill - before.prefill}
        return {
            "values": values + [0.0] * (len(nodes) - len(values)),
            **costs,
            "flops": spent.flops - before.flops,
            "calls": reserved.calls,
            "pages": seen["pages"],
            "cut": account.stopped_by,  # also where a scorer's own verb met a bound
        }

    async def finish(
        self, nodes: Iterable[Node], origin: str = "", keep: bool = False, read: Read | None = None
    ) -> list[Candidate]:
        """Makes each node a candidate and, unless `keep`, drops it. `read`: how its answer is read, if not as usual."""
        made = []
        for node in nodes:
            made.append(await self._candidate(node, origin, read or self.task.answers.extract))
            if not keep:
                node.drop()
        await self.show_best()
        return made

    async def show_best(self) -> None:
        """Notes which candidate is the best, where that has changed: by a new one, a weight or a rule."""
        best = await asyncio.to_thread(self.best)
        if best is not None and best.id != self._shown:
            self._shown = best.id
            self.journal.note("best", candidate=best.id, answer=best.answer)

    async def _candidate(self, node: Node, origin: str, read: Read) -> Candidate:
        number = len(self.candidates)
        text = _before(node.text, self.task.ending.text)
        data = self.journal.recorded("candidate", f"candidate{number}", 0, [node.id])
        if data is None:
            score = node.steps[-1] if node.steps else None
            answer = None if node.id in self.refused else await asyncio.to_thread(read, text)
            data = {"answer": answer, "text": text, "finished": node.ending != "budget", "score": score}
            self.journal.record("candidate", f"candidate{number}", 0, [node.id], data | {"origin": origin})
        candidate = Candidate(
            number, node.id, text, data["answer"], data["finished"], data["score"], tuple(node.steps), node.drawn
        )
        candidate.origin, candidate.weight = origin, float(node.id not in self.refused)
        self.candidates.append(candidate)
        return candidate

    def best(self) -> Candidate | None:
        """The best candidate so far by the run's rule. Comparing answers may take seconds: not for an event loop."""
        return best_of(self.candidates, self.rule, self.task.answers)

    def close(self) -> None:
        """Drops every sequence that is still open."""
        for node in list(self.live.values()):
            node.drop()


def _check(values: Sequence[float], count: int, name: str) -> None:
    """Raises InvalidRequest for scores that are too few, too many or no numbers: none of them may count as 0."""
    if len(values) != count or any(math.isnan(value) for value in values):
        raise InvalidRequest(f"The scorer {name} gave {values} for {count} attempts; give each one number.", "scorer")


def _before(text: str, stops: Sequence[str]) -> str:
    """The text up to the first of the stops."""
    ends = [text.find(stop) for stop in stops if stop in text]
    return text[: min(ends)] if ends else text


def _derived(seed: int, name: str) -> int:
    """63 bits that depend on nothing but the run's seed and the name."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") >> 1


def _digest(prompt: Prompt) -> str:
    given = prompt if isinstance(prompt, str) else json.dumps(list(prompt), sort_keys=True, default=str)
    return hashlib.sha256(given.encode()).hexdigest()[:16]
