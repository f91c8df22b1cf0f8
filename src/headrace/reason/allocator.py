"""How much to spend on a question: difficulty from a few attempts, then the plan that was best at that difficulty.

Snell et al. (2408.03314) choose by difficulty; here it is estimated without the gold answer, and the attempts that
it took become the first candidates of whatever is chosen.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from headrace.model.catalogue import cache_folder
from headrace.reason.choose import tally
from headrace.spec.errors import InvalidRequest
from headrace.spec.reasoning import AnswerSpace, Candidate

SHIPPED = Path(__file__).parent / "tables"
"""Calibrated tables that come along."""

STAY = ""
"""The plan that keeps what the probe found."""


def difficulty(probe: Sequence[Candidate], space: AnswerSpace) -> float:
    """From 0 to 1 without the gold answer: one minus the leading answer's share of the votes.

    With scores, the mean of that and one minus the mean score. An attempt without an answer votes for none.
    """
    if not probe:
        return 1.0
    votes = tally(probe, False, space)
    lead = max(votes.weights.values(), default=0.0)
    apart = 1 - lead / len(probe)
    scores = [candidate.score for candidate in probe if candidate.score is not None]
    return apart if not scores else (apart + 1 - math.fsum(scores) / len(scores)) / 2


@dataclass(frozen=True, slots=True)
class Table:
    """`plans[i]` is for difficulties from `edges[i - 1]` up to `edges[i]`; one more plan than edges."""

    edges: tuple[float, ...]
    plans: tuple[str, ...]
    probe: int = 4

    def __post_init__(self) -> None:
        if len(self.plans) != len(self.edges) + 1 or list(self.edges) != sorted(self.edges):
            raise InvalidRequest("A table needs rising edges and one plan more than edges; correct it.", "table")
        if any(re.search(r"\bauto\b", plan) for plan in self.plans):
            raise InvalidRequest("A table that chooses auto would never choose; name another strategy.", "table")

    def plan(self, hard: float) -> str:
        return self.plans[bisect_right(self.edges, hard)]

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


DEFAULT = Table((0.01, 0.6), (STAY, "self_consistency(n=8)", "self_consistency(n=24)"))
"""Without a calibration: unanimous probes are believed, the more they differ the more votes follow."""

SCORED = Table((0.3, 0.6), (STAY, "weighted_vote(n=8)", "step_beam(width=16)"))
"""The same where there is a scorer."""


def table_named(name: str, scored: bool) -> Table:
    """`default`, one saved at `table_path(name)`, or one that comes along: `lm-t`. Raises InvalidRequest."""
    if name == "default":
        return SCORED if scored else DEFAULT
    path = table_path(name)
    for found in (path, SHIPPED / path.name):
        if found.is_file():
            return read_table(found)
    raise InvalidRequest(f"There is no table {name!r} in {path.parent}; calibrate one, or use 'default'.", "table")


def read_table(path: Path) -> Table:
    """A table that `Table.save` wrote. Raises InvalidRequest for any other file."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return Table(tuple(told["edges"]), tuple(told["plans"]), told["probe"])
    except (OSError, ValueError, TypeError, KeyError):
        raise InvalidRequest(f"{path} holds no table; write it with Table.save.", "table") from None


def table_path(name: str) -> Path:
    """Where a table of that name lies; a name is letters, digits and dashes. Raises InvalidRequest."""
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", name):
        raise InvalidRequest(f"{name!r} is no name of a table; use letters, digits and dashes.", "table")
    return cache_folder() / "tables" / f"{name}.json"


class Tried(NamedTuple):
    """One plan on one question: how often it was right (0 to 1) and what it cost in tokens."""

    right: float
    tokens: float


class Record(NamedTuple):
    """One calibration question: its estimated difficulty and every plan that was tried on it."""

    difficulty: float
    plans: Mapping[str, Tried]


def calibrate(records: Sequence[Record], bins: int = 3, price: float = 0.0, probe: int = 4) -> Table:
    """The table whose plan in each quantile of difficulty has the most right answers, less `price` a token.

    Equal ones go to the cheaper plan. Raises InvalidRequest without records.
    """
    if not records:
        raise InvalidRequest("There is nothing to calibrate with; give records.", "records")
    hard = np.array([record.difficulty for record in records])
    edges = tuple(sorted({float(edge) for edge in np.quantile(hard, np.linspace(0, 1, bins + 1)[1:-1])}))
    plans = []
    for index in range(len(edges) + 1):
        inside = [record for record in records if bisect_right(edges, record.difficulty) == index]
        plans.append(_best_plan(inside or list(records), price))
    return Table(edges, tuple(plans), probe)


def _best_plan(records: Sequence[Record], price: float) -> str:
    def worth(plan: str) -> tuple[float, float]:
        tokens = math.fsum(record.plans[plan].tokens for record in records) / len(records)
        right = math.fsum(record.plans[plan].right for record in records) / len(records)
        return right - price * tokens, -tokens

    return max(records[0].plans, key=worth)


def cross_fitted(records: Sequence[Record], folds: int = 2, bins: int = 3, price: float = 0.0) -> Tried:
    """Accuracy and mean tokens of tables that never saw the questions they are tried on."""
    right, tokens = 0.0, 0.0
    for fold in range(folds):
        table = calibrate([r for i, r in enumerate(records) if i % folds != fold], bins, price)
        for record in records[fold::folds]:
            tried = record.plans[table.plan(record.difficulty)]
            right, tokens = right + tried.right, tokens + tried.tokens
    return Tried(right / len(records), tokens / len(records))
