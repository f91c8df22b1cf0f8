"""What the cells of veil_exactness.py say together."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from accuracy import summary as over_windows

from headrace.reason.intervals import ratio_interval


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By part; a part without a cell has none."""
    parts = {part: [row for row in rows if row["part"] == part] for part in ("answers", "throughput", "quantised")}
    made = {"answers": _answers, "throughput": _throughput, "quantised": _quantised}
    return {part: made[part](found) for part, found in parts.items() if found}


def _answers(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found = [row["found"] for row in rows]
    other = [{"prompt": row["setting"]["prompt"], "at": row["found"]["at"], "margin": row["found"]["margin"]}
             for row in rows if row["found"]["margin"] is not None]  # fmt: skip
    return {
        "prompts": len(found), "tokens": sum(each["tokens"] for each in found),
        "same_text": sum(each["same_text"] for each in found), "wrong": sum(each["wrong"] for each in found),
        "diverging": other, "apart": max(each["apart"] for each in found),
    }  # fmt: skip


def _throughput(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Ratios of each round: the veiled model's and the untied one's to the plain one's, and the first to the second."""
    result: dict[str, Any] = {}
    for weights in dict.fromkeys(row["setting"]["weights"] for row in rows):
        rounds = [row["found"] for row in rows if row["setting"]["weights"] == weights]
        result[weights] = {"rounds": len(rounds)}
        for what in ("decode", "prefill"):
            of = {name: [each[name][what] for each in rounds] for name in rounds[0]}
            pairs = (("veiled", "plain"), ("untied", "plain"), ("veiled", "untied"))
            ratios = {f"{a}/{b}": [x / y for x, y in zip(of[a], of[b], strict=True)] for a, b in pairs}
            result[weights][what] = {"plain": median(of["plain"])} | {n: _ratio(values) for n, values in ratios.items()}
    return result


def _ratio(values: Sequence[float]) -> dict[str, Any]:
    interval = ratio_interval(values)[1] if len(values) > 1 else None
    return {"median": median(values), "interval": interval}


def _quantised(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for which in dict.fromkeys((row["setting"]["weights"], row["setting"]["model"]) for row in rows):
        windows = [row["found"] for row in rows if (row["setting"]["weights"], row["setting"]["model"]) == which]
        found.append({"weights": which[0], "model": which[1], **over_windows(windows)})
    return found
