"""Slowdown against recovery as a small SVG: one mark a profile, bars for the 95 % interval."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from xml.sax.saxutils import escape

from headrace.privacy.report import PROFILES, Line, Report

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 380, 64, 40, 24, 64
LETTER, ROW = 6.5, 14
"""Pixels that a letter takes across at most, on average, and a line of text down."""
COLOURS = dict(zip(PROFILES, ("#666666", "#d55e00", "#0072b2", "#009e73"), strict=True))


def figure(report: Report) -> str:
    """The axis of slowdowns is logarithmic. Profiles without both figures are named below as not measured."""
    shown = [line for line in report.lines if line.slowdown is not None and line.recovery is not None]
    high = max(1, math.ceil(max((math.log10(line.slowdown) for line in shown if line.slowdown), default=0) + 1e-9))
    missing = "; ".join(line.profile for line in report.lines if line not in shown)
    below = textwrap.wrap(f"not measured: {missing}", int((WIDTH - LEFT) / LETTER)) if missing else []
    height = HEIGHT + ROW * max(len(below) - 1, 0)
    title = f"Slowdown against recovery: {report.model}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif"'
    parts = [f'{head} font-size="12" role="img"><title>{escape(title)}</title>']
    parts += ['<rect width="100%" height="100%" fill="#ffffff"/>', *_axes(high), *_marks(shown, high)]
    parts += [_text(LEFT, HEIGHT - 6 + ROW * row, words) for row, words in enumerate(below)]
    return "\n".join([*parts, "</svg>\n"])


def _x(slowdown: float, high: int) -> float:
    return round(LEFT + 24 + max(math.log10(slowdown), -0.1) / high * (WIDTH - LEFT - RIGHT - 48), 1)


def _y(share: float) -> float:
    return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)


def _axes(high: int) -> list[str]:
    parts = []
    for fifth in range(6):
        y = _y(fifth / 5)
        parts.append(f'<path d="M{LEFT} {y}H{WIDTH - RIGHT}" stroke="#dddddd"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{20 * fifth} %", "end"))
    for power in range(high + 1):
        x = _x(10.0**power, high)
        parts.append(f'<path d="M{x} {HEIGHT - BOTTOM}v5" stroke="#333333"/>')
        parts.append(_text(x, HEIGHT - BOTTOM + 19, f"{10**power:,} x", "middle"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(_text(middle, HEIGHT - BOTTOM + 38, "slowdown against the plain model", "middle"))
    parts.append(_text(LEFT, TOP - 9, "recovered by the best attack"))
    return parts


def _marks(lines: Sequence[Line], high: int) -> list[str]:
    """Names stand beside their marks, towards the middle; where they would meet, one above or below the other."""
    parts, used = [], list[tuple[float, float, float]]()
    for line in lines:
        assert line.slowdown is not None and line.recovery is not None
        x, y, colour = _x(line.slowdown, high), _y(line.recovery.value), COLOURS[line.kind]
        low, top = _y(line.recovery.low), _y(line.recovery.high)
        parts.append(f'<path d="M{x} {low}V{top}" stroke="{colour}" stroke-opacity="0.4" stroke-width="3"/>')
        parts.append(f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}"/>')
        name, right = f"{line.profile} ({line.attack})", x > WIDTH / 2
        wide, step = LETTER * len(name), ROW if y < HEIGHT / 2 else -ROW
        left, place = x - 9 - wide if right else x + 9, y + 4
        while any(left < end and begin < left + wide and abs(place - at) < ROW for begin, end, at in used):
            place += step
        used.append((left, left + wide, place))
        parts.append(_text(x - 9 if right else x + 9, place, name, "end" if right else "start"))
    return parts


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="#333333">{escape(text)}</text>'
