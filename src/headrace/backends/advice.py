"""What a refused memory plan advises."""

from __future__ import annotations

from collections.abc import Callable

LEAST_PAGES = 2
"""Pages of each state group that an engine is given at least."""


def nearest_plan(limit: int | None, pages: int, state: int, tables: int, idle: int) -> Callable[[int], str]:
    """For `Ledger.reserve_all`: bytes too many -> the nearest plan that fits.

    `state`: bytes of all `pages`; `tables`: of what grows with them. `idle`: bytes of the plan that nothing uses
    while weights are loaded, beyond what loading borrows; pages lowered by more than that free nothing.
    """
    page, beside = state // pages, tables // pages

    def advise(excess: int) -> str:
        raised = f"raise --memory to {-(-((limit or 0) + excess) // 2**20)}"
        fits = (pages - -(-excess // (page + beside))) * page // 2**20
        left = fits * 2**20 // page
        if fits > 0 and left >= LEAST_PAGES and (pages - left) * (page + beside) <= idle:
            return f"lower --state-memory to {fits}, or {raised}"
        return f"{raised}, or choose a smaller model"

    return advise
