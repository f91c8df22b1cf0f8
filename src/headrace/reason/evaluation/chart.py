"""Accuracy against decode tokens as a small SVG: one line a strategy, one point a budget, bars for intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any
from xml.sax.saxutils import escape

HEIGHT, LEFT, END, TOP, BOTTOM = 420, 56, 524, 24, 48
"""Pixels: of the plot with its axes, whose lines go from LEFT to END."""
LETTER, ENTRY = 7, 18
"""Width of a letter and height of a line in the list of strategies, which stands at the right."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f6000", "#666666")
MARKS = ("circle", "square", "diamond")


def chart(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """`rows` as `evaluate` gives them. The axis of tokens is logarithmic."""
    if not rows:
        return f'<svg xmlns="http://www.w3.org/2000/svg" width="{END}" height="{HEIGHT}"/>\n'
    axes = _Axes(rows)
    ordered = sorted(rows, key=lambda row: (row["strategy"], row["decode_tokens"]))
    lines = [list(found) for _, found in groupby(ordered, key=lambda row: row["strategy"])]
    body = [part for number, line in enumerate(lines) for part in _line(number, line, axes)]
    width = END + 44 + LETTER * max(len(line[0]["strategy"]) for line in lines)
    height = max(HEIGHT, TOP + ENTRY * len(lines) + ENTRY)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
    return "\n".join(
        [
            f'{head} font-size="12" role="img"><title>{escape(title)}</title>',
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            *axes.drawn(),
            *body,
            "</svg>\n",
        ]
    )


class _Axes:
    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        tokens = [max(row["decode_tokens"], 1.0) for row in rows]
        self.low, self.high = math.floor(math.log2(min(tokens))), math.ceil(math.log2(max(tokens)) + 1e-9)
        self.high = max(self.high, self.low + 1)
        self.top = min(max(math.ceil(max(row["interval"][1] for row in rows) * 10), 1), 10)

    def x(self, tokens: float) -> float:
        place = (math.log2(max(tokens, 1.0)) - self.low) / (self.high - self.low)
        return round(LEFT + place * (END - LEFT), 1)

    def y(self, accuracy: float) -> float:
        return round(HEIGHT - BOTTOM - accuracy * 10 / self.top * (HEIGHT - TOP - BOTTOM), 1)

    def drawn(self) -> list[str]:
        parts = []
        for tenth in range(self.top + 1):
            y = self.y(tenth / 10)
            parts.append(f'<path d="M{LEFT} {y}H{END}" stroke="#dddddd"/>')
            parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end" fill="#333333">{tenth * 10} %</text>')
        for power in range(self.low, self.high + 1):
            x = self.x(2.0**power)
            parts.append(f'<path d="M{x} {HEIGHT - BOTTOM}v5" stroke="#333333"/>')
            label = f'<text x="{x}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle" fill="#333333">{2**power}</text>'
            parts.append(label)
        middle = (LEFT + END) / 2
        parts.append(f'<path d="M{LEFT} {HEIGHT - BOTTOM}H{END}" stroke="#333333"/>')
        caption = "decode tokens a question"
        parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle" fill="#333333">{caption}</text>')
        return parts


def _line(number: int, line: Sequence[Mapping[str, Any]], axes: _Axes) -> list[str]:
    colour, mark = COLOURS[number % len(COLOURS)], MARKS[number // len(COLOURS) % len(MARKS)]
    points = [(axes.x(row["decode_tokens"]), axes.y(row["accuracy"])) for row in line]
    path = " ".join(f"{x},{y}" for x, y in points)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>']
    for (x, y), row in zip(points, line, strict=True):
        low, high = (axes.y(bound) for bound in row["interval"])
        parts.append(f'<path d="M{x} {low}V{high}" stroke="{colour}" stroke-opacity="0.35" stroke-width="2"/>')
        parts.append(_mark(mark, x, y, colour))
    y = TOP + 8 + ENTRY * number
    parts.append(_mark(mark, END + 18, y - 4, colour))
    parts.append(f'<text x="{END + 28}" y="{y}" fill="#333333">{escape(line[0]["strategy"])}</text>')
    return parts


def _mark(mark: str, x: float, y: float, colour: str) -> str:
    if mark == "circle":
        return f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}"/>'
    turn = f' transform="rotate(45 {x} {y})"' if mark == "diamond" else ""
    return f'<rect x="{x - 4}" y="{y - 4}" width="8" height="8" fill="{colour}"{turn}/>'
