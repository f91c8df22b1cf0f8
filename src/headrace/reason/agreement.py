"""When enough samples agree. Asked in the order of issue, so that short answers have no head start."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from fractions import Fraction


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
