"""Cost against accuracy: what is worth its price."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

Point: TypeAlias = tuple[float, float]
"""Cost and accuracy."""


def dominated(points: Mapping[str, Point]) -> dict[str, str]:
    """Each name that another one beats, at no more cost and no less accuracy and not equal in both, and by which."""
    found = {}
    for name, (cost, right) in points.items():
        rivals = [
            other
            for other, (price, share) in points.items()
            if price <= cost and share >= right and (price, share) != (cost, right)
        ]
        if rivals:
            found[name] = min(rivals, key=lambda other: (-points[other][1], points[other][0], other))
    return found


def frontier(points: Mapping[str, Point]) -> set[str]:
    """The names that none beats, by one sweep from the cheapest to the dearest."""
    found: set[str] = set()
    last: Point | None = None
    for name, (cost, right) in sorted(points.items(), key=lambda item: (item[1][0], -item[1][1])):
        if last is None or right > last[1] or (cost, right) == last:
            found.add(name)
            last = cost, right
    return found
