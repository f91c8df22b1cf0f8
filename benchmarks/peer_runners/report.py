"""Rounds to rows, rows to a table, and what acceptance asks of the best peer."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import Any

from peer_runners.cells import WORKLOADS, Round, name_of
from peer_runners.limits import Geometry, limit

SMALL = "smollm2-135m"
SHARE_OF_LIMIT = 0.85
DECODE_TARGETS = {1: 1.4, 8: 3.0, 32: 1.5}
LONG_DECODE_TARGET, LONG_CONTEXT = 2.5, 1024
PREFILL_TARGET = 1.2


def rows_of(
    rounds: dict[tuple[str, str, str], list[Round]], models: dict[str, Geometry], measured: dict[str, Any] | None
) -> list[dict[str, Any]]:
    """One row for each cell, peer and profile of ours: medians, the ratios' median, lowest and highest, the share
    of the limit."""
    rows = []
    for workload in WORKLOADS:
        for cell in workload.cells:
            name = name_of(workload.model, cell)
            for (of, peer, profile), done in rounds.items():
                if of != name:
                    continue
                ours = statistics.median(r.ours for r in done)
                most = limit(cell, models[workload.model], measured) if measured and workload.model in models else None
                ratios = sorted(r.ratio for r in done)
                rows.append(
                    {
                        "model": workload.model,
                        "weights": done[-1].weights,
                        "profile": profile,
                        "peer": peer,
                        "peer_version": done[-1].peer_version,
                        "measure": cell.measure,
                        "batch": cell.batch,
                        "prompt": cell.prompt,
                        "ours": ours,
                        "theirs": statistics.median(r.theirs for r in done),
                        "ratio": statistics.median(ratios),
                        "low": ratios[0],
                        "high": ratios[-1],
                        "limit_fraction": ours / most if most else None,
                    }
                )
    return rows


def target(row: dict[str, Any]) -> float | None:
    """The ratio to the best peer that acceptance asks for."""
    if row["measure"] == "decode":
        return LONG_DECODE_TARGET if row["prompt"] >= LONG_CONTEXT else DECODE_TARGETS.get(row["batch"])
    return PREFILL_TARGET if row["measure"] == "prefill" else None


def verdict(best: dict[str, Any]) -> str:
    """Against the best peer: the ratio asked for, or 85 % of the limit on larger models and where it lies below."""
    wanted, share = target(best), best["limit_fraction"]
    if wanted is None:
        return ""
    needed_share = None if share is None else wanted / best["ratio"] * share
    by_limit = needed_share is not None and (best["model"] != SMALL or needed_share > SHARE_OF_LIMIT)
    if by_limit:
        return f"{'met' if share >= SHARE_OF_LIMIT else 'missed'}: {share:.0%} of the limit, {SHARE_OF_LIMIT:.0%} asked"
    return f"{'met' if best['ratio'] >= wanted else 'missed'}: {wanted:g} asked"


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: one line a cell, profile and peer; beside the best peer what acceptance says of it."""
    lines = [
        "| cell | profile | ours | peer | theirs | ratio [range] | of the limit | acceptance |",
        "| --- | --- | ---: | --- | ---: | --- | ---: | --- |",
    ]
    cells: defaultdict[tuple[str, str, int, int, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        cells[row["model"], row["measure"], row["batch"], row["prompt"], row["profile"]].append(row)
    for (model, measure, batch, prompt, profile), peers in cells.items():
        best = min(peers, key=lambda row: row["ratio"])
        for row in sorted(peers, key=lambda row: row["ratio"]):
            share = f"{row['limit_fraction']:.0%}" if row["limit_fraction"] is not None else ""
            ratio = f"{row['ratio']:.2f} [{row['low']:.2f}–{row['high']:.2f}]"
            lines.append(
                f"| {model} {measure} {batch} × {prompt} | {profile} | {figure(row['ours'])} | {row['peer']} "
                f"| {figure(row['theirs'])} | {ratio} | {share} | {verdict(best) if row is best else ''} |"
            )
    return "\n".join(lines)


def figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
