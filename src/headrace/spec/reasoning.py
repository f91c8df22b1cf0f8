"""The host protocols of test-time compute: what scores, compares, proposes, retrieves and acts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

ScorerKind: TypeAlias = Literal["process", "outcome", "judge", "self", "exact"]


@dataclass(slots=True)
class Candidate:
    """A finished (or, where the budget cut it, an unfinished) attempt of one run.

    `answer` is the canonical form that its AnswerSpace extracted from `text`; None means unparsed.
    """

    id: int
    node: str
    text: str
    answer: str | None
    finished: bool = True
    score: float | None = None
    steps: tuple[float, ...] = ()
    tokens: int = 0
    weight: float = 1.0
    origin: str = ""
    remark: str = ""
    """The first mistake that a critic named in it."""


class Score(NamedTuple):
    """`value` in [0, 1]; `per_step` where a process scorer gives one for each step."""

    value: float
    per_step: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Scored:
    """What a scorer looks at: the question, the text so far, and the live sequence behind it (or None)."""

    question: str
    text: str
    finished: bool
    sequence: Any = None
    meta: Mapping[str, Any] = field(default_factory=dict)


class Scorer(Protocol):
    """Scores attempts. `sound`: a score of 1 proves the answer, so a search may stop at it; a reward model never is.

    `oracle`: it sees the gold answer; runs with it are kept apart from all others.
    """

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> ScorerKind: ...

    @property
    def sound(self) -> bool: ...

    @property
    def oracle(self) -> bool: ...

    async def score(self, items: Sequence[Scored]) -> list[Score]: ...


class AnswerSpace(Protocol):
    """What an answer is and when two are equal; `equal` is closed to an equivalence relation by `groups`."""

    @property
    def name(self) -> str: ...

    def extract(self, text: str) -> str | None:
        """The canonical answer in a text, or None where there is none."""
        ...

    def equal(self, a: str, b: str) -> bool: ...


class Call(NamedTuple):
    """One request to a tool."""

    name: str
    arguments: Mapping[str, Any]


class Outcome(NamedTuple):
    """What a tool returned; `ok` False with the error as `text`."""

    text: str
    ok: bool = True


class Tool(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def seconds(self) -> float:
        """Longest time of one call."""
        ...

    async def call(self, batch: Sequence[Call]) -> list[Outcome]: ...


class Passage(NamedTuple):
    id: str
    text: str
    score: float
    meta: Mapping[str, Any] = {}


class Retriever(Protocol):
    async def find(self, queries: Sequence[str], count: int) -> list[list[Passage]]: ...


class Trial(NamedTuple):
    """What a proposer wants tried: extend `node`, or a new child of it."""

    id: int
    node: str


class Proposer(Protocol):
    """A search policy as pure data: `ask` for trials, `tell` their outcomes, in any order."""

    def ask(self, state: Any, count: int) -> list[Trial]: ...

    def tell(self, state: Any, id: int, outcome: float) -> Any: ...
