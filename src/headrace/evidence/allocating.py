"""Compute by difficulty against the same for all, from stored pools alone (Snell et al., 2408.03314)."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from headrace.reason.allocator import STAY, Record, Table, difficulty
from headrace.reason.choose import Best
from headrace.reason.evaluation.allocation import PROBE, Pool, cheapest, outcome, probed, records
from headrace.reason.evaluation.pooled import orders_of, outcomes, pick
from headrace.reason.intervals import (
    Interval,
    bootstrap_weights,
    cluster_bootstrap,
    paired_bootstrap,
    percentiles,
)
from headrace.reason.statistics import auc
from headrace.reason.strategy import Step, parse
from headrace.spec.budget import Budget
from headrace.spec.reasoning import Candidate

BINS, FOLDS, TURNS = 5, 2, 16
"""Bins of difficulty; halves of the questions; orders in which a pool's attempts could have come."""
SEARCH = "step_beam(width=4, expand=2)"
VOTED = tuple(f"{name}(n={n})" for name in ("self_consistency", "best_of_n", "weighted_vote") for n in (4, 12))
PLANS = (STAY, *VOTED, SEARCH)
"""What may follow a probe of four; with it the pooled ones take 8 or 16 attempts."""
RULES: tuple[Best, ...] = ("vote", "weighted", "score")


@dataclass(frozen=True, slots=True)
class Case:
    """A question's pool from the small model, and how one attempt of the large one went.

    `flops` of that attempt; `prompt_flops` of the small model's question, which its attempts share.
    """

    pool: Pool
    right: bool
    flops: float
    prompt_flops: float

    def operations(self, place: int) -> float:
        """Of one attempt of the small model with its verdict."""
        question = self.pool.question
        return question.samples[place].flops + question.scorings[place].flops

    @property
    def attempt_flops(self) -> float:
        return fmean(map(self.operations, range(len(self.pool.question.samples))))


@dataclass(frozen=True, slots=True)
class Board:
    """The cases with everything that plans come to behind every probe: `found[case][turn]`."""

    cases: Sequence[Case]
    orders: np.ndarray
    found: Sequence[Sequence[Record]]

    @classmethod
    def of(cls, cases: Sequence[Case], plans: Sequence[str] = PLANS, probe: int = PROBE) -> Board:
        orders = orders_of(len(cases[0].pool.question.samples), count=TURNS)
        return cls(cases, orders, [records(case.pool, plans, orders, probe) for case in cases])

    def shuffled(self, seed: int = 0) -> Board:
        """The same with the difficulties dealt out at random: what is left is no estimate."""
        rows = [row for case in self.found for row in case]
        dealt = np.random.default_rng(seed).permutation([row.difficulty for row in rows]).tolist()
        turns = len(self.orders)
        return replace(
            self,
            found=[
                [row._replace(difficulty=dealt[turns * k + turn]) for turn, row in enumerate(rows)]
                for k, rows in enumerate(self.found)
            ],
        )

    @property
    def places(self) -> range:
        return range(len(self.cases))

    def fold(self, number: int, other: bool = False) -> list[int]:
        """The places of one half of the questions, or of the other half."""
        return [k for k in self.places if (k % FOLDS == number) != other]


# -- how hard a question is ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difficulty:
    """`auc` of the difficulty, and of its parts alone, against the failure of the first attempt behind the probe.

    `blind`: how many estimates stay the same when every known answer is turned round. `bins`: the share of those
    attempts that are right in each fifth of difficulty, the easiest first.
    """

    auc: float
    interval: Interval
    parts: dict[str, float]
    blind: int
    count: int
    bins: list[float]


def estimated(board: Board) -> Difficulty:
    right = [_right(case, order[PROBE]) for case in board.cases for order in board.orders]
    wrong = [not one for one in right]
    hard = [record.difficulty for row in board.found for record in row]
    owners = [k for k in board.places for _ in board.orders]
    value, interval = auc(hard, wrong, owners)
    parts = {name: auc(part, wrong, owners, resamples=1)[0] for name, part in _parts(board).items()}
    edges = _edges(board)
    inside = [bisect_right(edges, one) for one in hard]
    bins = [fmean(one for one, b in zip(right, inside, strict=True) if b == number) for number in range(BINS)]
    return Difficulty(value, interval, parts, _blind(board), len(hard), bins)


def _parts(board: Board) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"agreement": [], "verdict": [], "length": []}
    for case in board.cases:
        question = case.pool.question
        for order in board.orders.tolist():
            probe = [question.samples[place] for place in order[:PROBE]]
            plain = [Candidate(k, "", one.text, one.answer) for k, one in enumerate(probe)]
            found["agreement"].append(difficulty(plain, case.pool.space))
            found["verdict"].append(1 - fmean(question.score(place) for place in order[:PROBE]))
            found["length"].append(fmean(one.tokens for one in probe))
    return found


def _blind(board: Board) -> int:
    same = 0
    for case, row in zip(board.cases, board.found, strict=True):
        question = case.pool.question
        turned = [replace(one, kind="wrong" if one.kind == "right" else "right") for one in question.samples]
        other = replace(case.pool, question=replace(question, samples=tuple(turned)))
        same += sum(
            probed(other, order.tolist()) == one.difficulty for order, one in zip(board.orders, row, strict=True)
        )
    return same


def _right(case: Case, place: int) -> bool:
    return case.pool.question.samples[place].kind == "right"


def _edges(board: Board) -> list[float]:
    hard = [record.difficulty for row in board.found for record in row]
    return np.quantile(hard, np.linspace(0, 1, BINS + 1)[1:-1]).tolist()


# -- by difficulty against the same for all --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Against:
    """Tables that never saw the questions they are tried on, against one rival for all of them.

    `gain` in right answers, `ratio` of tokens, both with paired 95 % intervals over questions. `tables` by fold.
    """

    rival: str
    ours: float
    theirs: float
    gain: float
    interval: Interval
    ratio: float
    span: Interval
    tables: tuple[Table, ...]

    def reaches(self, margin: float, share: float) -> bool:
        """Not `margin` less right, and at most that share of the tokens, each with its whole interval."""
        return self.interval[0] > -margin and self.span[1] <= share

    def __str__(self) -> str:
        (low, high), (least, most) = self.interval, self.span
        return (
            f"{self.rival} {self.theirs:.3f}, tables {self.ours:.3f}: {self.gain:+.3f} [{low:+.3f}, {high:+.3f}] "
            f"at {self.ratio:.2f} [{least:.2f}, {most:.2f}] of its tokens"
        )


def against(board: Board, rival: str, bins: int = BINS) -> Against:
    """With `bins` 1 the table is one plan for all: what is gained without a look at difficulty."""
    theirs = np.array([_rival(board, k, rival) for k in board.places])
    ours, tables = np.zeros_like(theirs), []
    for number in range(FOLDS):
        fit = board.fold(number, other=True)
        table = cheapest([row for k in fit for row in board.found[k]], float(theirs[fit, 0].mean()), bins)
        tables.append(table)
        for k in board.fold(number):
            ours[k] = outcome(table, board.found[k])
    gain, interval = paired_bootstrap(ours[:, 0].tolist(), theirs[:, 0].tolist())
    weights = bootstrap_weights(len(theirs))
    span = percentiles((weights @ ours[:, 1]) / (weights @ theirs[:, 1]))
    right, cost = ours.mean(axis=0)
    other, price = theirs.mean(axis=0)
    return Against(rival, float(right), float(other), gain, interval, float(cost / price), span, tuple(tables))


def _rival(board: Board, k: int, strategy: str) -> tuple[float, float]:
    plan = parse(strategy)
    assert isinstance(plan, Step)
    found = outcomes(plan, board.cases[k].pool.question, Budget(), board.orders)
    return fmean(one.kind == "right" for one in found), fmean(one.tokens + one.prefill for one in found)


def whole_table(board: Board, rival: str) -> Table:
    """The table of all questions, for use on others."""
    target = fmean(_rival(board, k, rival)[0] for k in board.places)
    return cheapest([row for rows in board.found for row in rows], target, BINS)


# -- small with search against large ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Match:
    """One bin of difficulty: the small model's attempts for the operations of one attempt of the large one.

    `spent`: operations of the small one over those it was matched with; `attempts` and `rule` as chosen elsewhere.
    """

    small: float
    large: float
    gain: float
    interval: Interval
    spent: float
    attempts: float

    @property
    def verdict(self) -> str:
        return "small wins" if self.interval[0] > 0 else "small loses" if self.interval[1] < 0 else "undecided"

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.small:.2f} to {self.large:.2f} ({self.gain:+.2f} [{low:+.2f}, {high:+.2f}], {self.verdict})"


def matched(board: Board, trained: float = 0.0) -> list[Match]:
    """By bin, the easiest first. `trained`: tokens of training over tokens of inference, 0 counting inference alone.

    The inference that both may do is then M + 3 trained (M - 1) times the small model's own, M the ratio of their
    operations a token. What the attempts are chosen by is the rule that was best in the bin on the other half.
    """
    edges, rows = _edges(board), [_matches(board, k, trained) for k in board.places]
    bins = [[bisect_right(edges, record.difficulty) for record in found] for found in board.found]
    rules = [_best_rules(board, rows, bins, number) for number in range(FOLDS)]
    made = []
    for number in range(BINS):
        chosen = [
            [(row, row.right[rules[k % FOLDS][number]]) for row, b in zip(rows[k], bins[k], strict=True) if b == number]
            for k in board.places
        ]
        made.append(_match(board, chosen))
    return made


@dataclass(frozen=True, slots=True)
class _Fit:
    right: dict[Best, float]
    attempts: int
    spent: float


def _matches(board: Board, k: int, trained: float) -> list[_Fit]:
    case = board.cases[k]
    one = case.attempt_flops
    bound = case.flops + 3 * trained * max(case.flops - one, 0.0)
    found = []
    for order in board.orders.tolist():
        costs = np.cumsum([case.operations(place) - case.prompt_flops for place in order]) + case.prompt_flops
        count = max(int(np.searchsorted(costs, bound, side="right")), 1)
        right = {rule: float(_right(case, pick(rule, case.pool.question, order[:count]))) for rule in RULES}
        found.append(_Fit(right, count, float(costs[count - 1] / bound)))
    return found


def _best_rules(
    board: Board, rows: Sequence[Sequence[_Fit]], bins: Sequence[Sequence[int]], fold: int
) -> dict[int, Best]:
    """For each bin the rule that is right most often on the other half; the first of equal ones."""
    chosen: dict[int, Best] = {}
    for number in range(BINS):
        inside = [
            row for k in board.fold(fold, other=True) for row, b in zip(rows[k], bins[k], strict=True) if b == number
        ]
        chosen[number] = max(RULES, key=lambda rule: math.fsum(row.right[rule] for row in inside))
    return chosen


def _match(board: Board, chosen: Sequence[Sequence[tuple[_Fit, float]]]) -> Match:
    gains = [[right - float(board.cases[k].right) for _, right in chosen[k]] for k in board.places]
    flat = [(fit, right, board.cases[k].right) for k in board.places for fit, right in chosen[k]]
    small, large = fmean(right for _, right, _ in flat), fmean(big for _, _, big in flat)
    spent, attempts = fmean(fit.spent for fit, _, _ in flat), fmean(fit.attempts for fit, _, _ in flat)
    return Match(small, large, small - large, cluster_bootstrap(gains), spent, attempts)
