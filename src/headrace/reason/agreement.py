"""When enough samples agree, decided in the order of issue so that short answers have no head start."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from fractions import Fraction
from itertools import takewhile


def lead(first: int, second: int) -> Fraction:
    """1 - I_{1/2}(first + 1, second + 1): how sure votes of first against second make that the first leads.

    Exact: the regularised incomplete beta function at 1/2 is a binomial tail of integers.
    """
    throws = first + second + 1
    return Fraction(sum(math.comb(throws, heads) for heads in range(first + 1)), 2**throws)


def betastop(counts: Iterable[float], threshold: float = 0.95) -> bool:
    """Whether adaptive consistency stops at these votes of the answers (Aggarwal et al. 2023).

    Only the two greatest count; a threshold of at most 1/2 stops before the first vote.
    """
    first, second = heapq.nlargest(2, [*counts, 0, 0])
    return lead(int(first), int(second)) >= threshold


def finished_prefix(finished: Sequence[bool]) -> int:
    """How many samples from the first issued on are finished without a gap.

    Only these may be looked at by a stopping rule. What finishes first is short, and where right answers are
    long a rule that looks at it stops on wrong ones.
    """
    return sum(1 for _ in takewhile(bool, finished))


def stop_after(answers: Sequence[Hashable | None], threshold: float = 0.95) -> int | None:
    """After how many of the answers, in issue order, adaptive consistency stops; None if it goes on.

    None among the answers is an unparsed sample, which casts no vote.
    """
    counts: Counter[Hashable] = Counter()
    for place, answer in enumerate(answers, 1):
        if answer is not None:
            counts[answer] += 1
            if betastop(counts.values(), threshold):
                return place
    return None
