"""A sequence of a search tree: the engine's verbs with a budget before them and a trace behind them.

A node is known by its place in the tree, "0.2.1" being the second kid of the third kid of the first root.
What it did is in the trace; where a resumed run has it there, nothing runs, and the live sequence behind
the node is opened again only when a verb goes beyond the trace.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from headrace.engine.sequence import Mark, Place, SequenceHandle
from headrace.reason.account import Amount
from headrace.reason.confidence import token_confidence
from headrace.spec.sampling import Sampling, Stop

if TYPE_CHECKING:
    from headrace.engine.answer import Step
    from headrace.engine.tasks import Pool
    from headrace.reason.run import Run

Ending: TypeAlias = Literal["stop", "end", "length", "budget"]
"""Why an extend ended: a stop was met, the model's own end, the tokens asked for or the context, the budget."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What an extend gave. `logprobs` and `confidences` are there where the sampling asked for logprobs.

    A confidence is minus the mean log-probability of the most probable alternatives (DeepConf, 2508.15260).
    """

    tokens: list[int]
    text: str
    ending: Ending
    logprobs: list[float]
    confidences: list[float]


NO_BILL = {"flops": 0.0, "cut": None}
REFUSED = {"prefill": 0, "pages": 0, **NO_BILL}


class Node:
    """One sequence of a run. Verbs spend from the run's purse; `ending` is set once nothing more can come.

    `steps`: scores of its steps so far. `logprob`: sum over the drawn tokens, where the sampling asked for them.
    """

    def __init__(self, run: Run, id: str, place: Place, root: Node | None) -> None:
        self.run = run
        self.id = id
        self.place = place
        self.tokens: list[int] = []
        self.prompt = 0
        self.ending: Ending | None = None
        self.value = 0.0
        self.steps: list[float] = []
        self.logprob = 0.0
        self.paid = True
        """Whether the budget allowed its prompt."""
        self._root = root or self
        self._handle: SequenceHandle | None = None
        self._written = [(0, b"")]
        """The length in tokens and the bytes after each verb."""
        self._verbs = 0
        self._kids = 0

    @property
    def text(self) -> str:
        """What was drawn or appended after the prompt, without end tokens."""
        return self._written[-1][1].decode("utf-8", errors="ignore")

    @property
    def drawn(self) -> int:
        """Tokens after the prompt."""
        return len(self.tokens) - self.prompt

    # -- verbs -------------------------------------------------------------------------------------

    async def extend(self, stop: Stop | None = None, sampling: Sampling | None = None) -> Drawn:
        """Draws until `stop`; less where the budget ends. Nothing where it has ended already."""
        if self.ending is not None:
            return Drawn([], "", self.ending, [], [])
        stop, sampling = stop or self.run.task.ending, sampling or self.run.sampling
        ask = self.run.context - len(self.tokens)
        ask = ask if stop.tokens is None else min(ask, stop.tokens)
        asked = [ask, *stop.text, *stop.token_ids, sampling.temperature]
        data = self.recorded("extend", asked)
        if data is None:
            data = await self._draw(ask, stop, sampling)
            self.record("extend", asked, data)
        drawn = Drawn(data["tokens"], data["text"], data["ending"], data["logprobs"], data["confidences"])
        self._grow(drawn.tokens, drawn.text)
        self.logprob += sum(drawn.logprobs)
        if drawn.ending in ("end", "budget") or (drawn.ending == "length" and not drawn.tokens):
            self.ending = drawn.ending
        return drawn

    async def append(self, text: str | Sequence[int]) -> bool:
        """Forces tokens; False, and nothing, where the budget or the context does not allow them."""
        asked = [text if isinstance(text, str) else list(text)]
        data = self.recorded("append", asked)
        if data is None:
            tokens = self.run.running()._encode_piece(text)
            bill = dict(REFUSED)
            if self._fits(len(tokens)):
                bill = await self.run.purse.prefill(self.id, len(self.tokens), len(tokens))
            if bill["prefill"]:
                self.live().append(tokens)
            data = {"tokens": tokens if bill["prefill"] else [], "text": "", **bill}
            data["text"] = self._text_of(data["tokens"])
            self.record("append", asked, data)
        self._grow(data["tokens"], data["text"])
        return bool(data["prefill"])

    def fork(self, count: int = 1) -> list[Node]:
        """Nodes with the same tokens and shared pages; each draws noise of its own."""
        handles: list[SequenceHandle] = []
        data = self.recorded("fork", [count])
        if data is None:
            handles = self.live().fork(count, aside=self.run.aside)
            data = {"paths": [list(handle.place.path) for handle in handles], **NO_BILL}
            self.record("fork", [count], data)
        kids = [self._kid(Place(self.place.seed, tuple(path))) for path in data["paths"]]
        for kid, handle in zip(kids, handles, strict=False):
            kid._handle = handle
        if not self.run.aside:
            self.place = replace(self.place, forks=self.place.forks + count)
            self.run.purse.account.count("forks", count)
        return kids

    def mark(self) -> Mark:
        return Mark(0, len(self.tokens), self.place.path[-1], self.place.forks)

    def rewind(self, mark: Mark) -> None:
        """Goes back to a mark of this node; the next draw differs from the one before."""
        if self.recorded("rewind", [mark.length]) is None:
            handle = self.live()
            handle.rewind(Mark(handle.id, mark.length, mark.branch, mark.forks))
            self.record("rewind", [mark.length], dict(NO_BILL))
        branches = self.place.branches + 1
        self.place = replace(self.place, path=(*self.place.path[:-1], branches), branches=branches)
        del self.tokens[mark.length :]
        self._written = [entry for entry in self._written if entry[0] <= mark.length]
        self.ending = None
        self.run.purse.pages.cut(self.id, mark.length)

    async def score(self, texts: Sequence[str], ahead: bool = False) -> list[list[float]] | None:
        """Log-probabilities of every token of each continuation; None where budget or context do not allow them.

        `ahead`: its prompt has not been computed yet and is, once for all continuations.
        """
        data = self.recorded("logprobs", list(texts))
        if data is None:
            pieces = [self.run.running()._encode_piece(text) for text in texts]
            bill, found, purse = dict(REFUSED), None, self.run.purse
            if self._fits(max(map(len, pieces), default=0)):
                async with purse.look(len(self.tokens), [len(piece) for piece in pieces]) as bill:
                    if ahead and bill["prefill"]:
                        await self.prefill()
                    if bill["prefill"]:
                        found = await purse.timed(lambda: self.live().score(pieces), bill)
            data = {"logprobs": found, **bill}
            self.record("logprobs", list(texts), data)
        else:
            await self.run.purse.looked(data)
        logprobs: list[list[float]] | None = data["logprobs"]
        return logprobs

    async def read(self, what: str = "hidden:-1", pool: Pool = "last") -> np.ndarray | None:
        """Hidden states in float32, as the engine's verb gives them; None where the budget does not allow it."""
        data = self.recorded("read", [what, pool])
        if data is None:
            bill, found, purse = dict(REFUSED), None, self.run.purse
            if self._fits(0):
                count = 1 if pool == "last" else len(self.tokens)  # all of them are computed again
                async with purse.look(len(self.tokens) - count, [count]) as bill:
                    if bill["prefill"]:
                        found = await purse.timed(lambda: self.live().read(what, pool), bill)
            data = {**_packed(found), **bill}
            self.record("read", [what, pool], data)
        else:
            await self.run.purse.looked(data)
        if data["cut"] or not data["prefill"]:
            return None
        return np.frombuffer(base64.b64decode(data["values"]), np.float32).reshape(data["shape"])

    def drop(self) -> None:
        """Frees the sequence; what the node has said stays readable."""
        if self._handle is not None:
            self._handle.drop()
            self._handle = None
        self.run.purse.pages.drop(self.id)
        self.run.live.pop(self.id, None)

    # -- for the run -------------------------------------------------------------------------------

    def recorded(self, kind: str, asked: list[Any]) -> dict[str, Any] | None:
        """What the journal has for this node's next verb; it is paid for as it was."""
        if self.run.aside:
            return None
        self._verbs += 1
        data = self.run.journal.recorded(kind, self.id, self._verbs, asked)
        if data is not None:
            self.run.purse.book(data)
        return data

    def record(self, kind: str, asked: list[Any], data: dict[str, Any]) -> None:
        if not self.run.aside:
            self.run.journal.record(kind, self.id, self._verbs, asked, data)

    def begin(self, opened: dict[str, Any]) -> None:
        """Takes its prompt; one that could not be paid for has ended."""
        self.tokens, self.prompt = list(opened["tokens"]), len(opened["tokens"])
        self._written = [(self.prompt, b"")]
        self.run.live[self.id] = self
        if opened["prefill"]:
            self.run.purse.pages.grow(self.id, self.prompt, self.run.purse.account)
        else:
            self.ending, self.paid = "budget", False

    async def prefill(self) -> None:
        """Computes its prompt now, so that forks share all of it; later, where a look at the clock has ended it."""
        if self.ending is not None:
            return
        step = await self.run.purse.timed(lambda: self.live().extend(Stop(tokens=0)))
        if step is not None:
            self.run.purse.note_cached(self.id, step.cached_tokens)

    def end_where(self, ending: Stop) -> None:
        """Marks it as ended where its text or its length has come to the end of an attempt."""
        if self.ending is None and any(text in self.text for text in ending.text):
            self.ending = "stop"
        if self.ending is None and ending.tokens is not None and self.drawn >= ending.tokens:
            self.ending = "length"

    def live(self) -> SequenceHandle:
        """The engine's sequence behind the node, opened anew where it is not there."""
        if self._handle is None:
            self._handle = self.run.running().open_now(list(self.tokens), place=self.place, **self.run.identity)
            self._handle.prompt_tokens = self.prompt
        self._handle.value = self.value
        return self._handle

    # -- internals ---------------------------------------------------------------------------------

    def _fits(self, more: int) -> bool:
        return self.paid and len(self.tokens) + more <= self.run.context

    def _kid(self, place: Place) -> Node:
        self._kids += not self.run.aside
        self.run.looks += self.run.aside
        name = f"{self.id}.aside{self.run.looks}" if self.run.aside else f"{self.id}.{self._kids - 1}"
        kid = Node(self.run, name, place, self._root)
        kid.tokens, kid.prompt, kid._written = list(self.tokens), self.prompt, list(self._written)
        kid.value, kid.steps, kid.logprob = self.value, list(self.steps), self.logprob
        kid.ending, kid.paid = self.ending, self.paid
        self.run.live[kid.id] = kid
        self.run.purse.pages.fork(self.id, kid.id)
        return kid

    async def _draw(self, ask: int, stop: Stop, sampling: Sampling) -> dict[str, Any]:
        purse, start = self.run.purse, len(self.tokens)
        nothing: dict[str, Any] = {
            "tokens": [],
            "text": "",
            "logprobs": [],
            "confidences": [],
            "drawn": 0,
            "flops": 0.0,
        }
        if ask <= 0:
            return nothing | {"ending": "length", "cut": None}
        account = purse.account
        reserved, cut = await account.reserve(lambda: purse.affordable(self.id, start, ask))
        used, step = Amount(), None
        try:
            if reserved.tokens:
                part = replace(stop, tokens=reserved.tokens)
                step = await purse.timed(lambda: self.live().extend(part, sampling))
                cut = "seconds" if step is None or step.finish_reason == "cancelled" else cut
            if step is None:
                account.stop(cut or "tokens")
                return nothing | {"ending": "budget", "cut": cut}
            count = len(step.token_ids)
            used = Amount(tokens=count, flops=purse.cost.flops(start, count))
            ending = _ending(step, stop, cut)
            logprobs = [entry.logprob for entry in step.logprobs or []]
            tops = [[logprob for _, logprob in entry.top or ()] for entry in step.logprobs or []]
            confidences = [known for top in tops if (known := token_confidence(top)) is not None]
            found: dict[str, Any] = {"tokens": step.token_ids, "text": self._text_of(step.token_ids), "ending": ending}
            found |= {"logprobs": logprobs, "confidences": confidences, "drawn": count, "flops": used.flops}
            bound = cut if ending == "budget" else None
            if bound is not None:
                account.stop(bound)
            return found | {"cut": bound}
        finally:
            purse.pages.grow(self.id, start + used.tokens, account)
            account.settle(reserved, used)

    def _text_of(self, tokens: Sequence[int]) -> str:
        tokenizer = self.run.running().tokenizer
        return "" if tokenizer is None else _as_text(b"".join(map(tokenizer.token_bytes, tokens)))

    def _grow(self, tokens: list[int], text: str) -> None:
        self.tokens += tokens
        self._written.append((len(self.tokens), self._written[-1][1] + _as_bytes(text)))
        if self.paid:
            self.run.purse.pages.grow(self.id, len(self.tokens), self.run.purse.account)


def _ending(step: Step, stop: Stop, cut: str | None) -> Ending:
    if step.finish_reason == "stop":
        return "end" if isinstance(step.stop, int) and step.stop not in stop.token_ids else "stop"
    return "length" if cut is None else "budget"


def _packed(values: np.ndarray | None) -> dict[str, Any]:
    """Hidden states for the trace; nothing where there are none."""
    found = np.zeros(0, np.float32) if values is None else np.ascontiguousarray(values, np.float32)
    return {"values": base64.b64encode(found.tobytes()).decode(), "shape": list(found.shape)}


def _as_text(written: bytes) -> str:
    """Text for the trace; bytes that end inside a character are kept as base64 after a mark."""
    try:
        text = written.decode("utf-8")
    except UnicodeDecodeError:
        return "\0" + base64.b64encode(written).decode()
    return text if not text.startswith("\0") else "\0" + base64.b64encode(written).decode()


def _as_bytes(text: str) -> bytes:
    return base64.b64decode(text[1:]) if text.startswith("\0") else text.encode()
