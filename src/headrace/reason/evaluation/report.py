"""The figures of an evaluation as Markdown and as a small chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.reason.evaluation.table import VERDICTS

Figures = Mapping[str, Any]
COLUMNS = (
    "strategy",
    "budget",
    "accuracy [95 %]",
    "decode",
    "total",
    "seconds",
    "pages",
    "not answered",
    "dominated by",
)


def markdown(figures: Figures, chart: str | None = None) -> str:
    """A page that says how the figures came about. `chart`: the file name of an SVG to show."""
    settings = figures["settings"]
    parts = [
        f"# {settings['task']} with {settings['model']}",
        f"{figures['questions']} questions, profile {settings['profile']}, temperature {settings['temperature']:g}, "
        f"at most {settings['max_tokens']} tokens an attempt, seed {settings['seed']}, "
        f"scorer {figures['scorer'] or 'none'}.",
    ]
    if figures["rows"]:
        parts += ["## Accuracy against cost", table(COLUMNS, cells(figures["rows"])), _NOTE]
    if chart is not None:
        parts.append(f"![accuracy against decode tokens]({chart})")
    if figures["comparisons"]:
        compared = table(*comparison_cells(figures["comparisons"]))
        parts += [f"## Against {figures['baseline']}", compared, sentence(figures)]
    if figures["oracle"]:
        parts += [
            "## Oracle runs\n\nTheir scorer knows what is right: no results.",
            table(COLUMNS, cells(figures["oracle"])),
        ]
    if figures["pool"] is not None:
        parts += ["## The pool", scorer_line(figures["pool"]), table(*curve_cells(figures["pool"]["curves"]))]
    return "\n\n".join(parts) + "\n"


_NOTE = (
    "Decode: tokens drawn; total: with those given; seconds: of wall time, shared among the questions in flight; "
    "pages: held at once; means over questions. Not answered: unparsed, timeout, cut by a bound. A row is dominated "
    "where another one is as right for no more decode tokens."
)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def cells(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """One tuple of COLUMNS a row."""
    return [
        (
            row["strategy"] + (" (pool)" if row["source"] == "pool" else ""),
            row["budget"],
            f"{row['accuracy']:.1%} {_interval(row['interval'])}",
            f"{row['decode_tokens']:.0f}",
            f"{row['total_tokens']:.0f}",
            f"{row['seconds']:.2f}",
            f"{row['peak_pages']:.0f}",
            _missing(row["classes"]),
            row["dominated_by"] or "",
        )
        for row in rows
    ]


def sentence(figures: Figures) -> str:
    """Which strategies beat the baseline at equal tokens, and what the questions could have shown."""
    compared = figures["comparisons"]
    told = [
        f"{verdict}: {', '.join(found) or 'none'}"
        for verdict in VERDICTS
        for found in [[_place(one) for one in compared if one["verdict"] == verdict]]
        if found or verdict != VERDICTS[-1]
    ]
    least = [one["detectable"] for one in compared if one["detectable"]]  # none where two are the same everywhere
    reach = f" The smallest difference these questions find four times in five: {_span(least)}." if least else ""
    return (
        f"Of {len(compared)} comparisons, by their 95 % paired intervals, uncorrected – {'; '.join(told)}.{reach} "
        f"Holm's p is corrected for all comparisons of the table."
    )


def _span(values: Sequence[float]) -> str:
    low, high = _size(min(values)), _size(max(values))
    return low if low == high else f"{low} to {high}"


def _size(detectable: float) -> str:
    """A few questions may call for a difference that no two accuracies have."""
    return f"{detectable:.1%}" if detectable <= 1 else "none"


def _place(one: Mapping[str, Any]) -> str:
    return one["strategy"] if one["budget"] == "no bound" else f"{one['strategy']} at {one['budget']}"


Table = tuple[Sequence[str], Sequence[tuple[str, ...]]]


def comparison_cells(compared: Sequence[Mapping[str, Any]]) -> Table:
    columns = ("strategy", "budget", "tokens", "against", "its", "difference [95 %]", "p", "Holm p", "detectable")
    rows: list[tuple[str, ...]] = [
        (
            one["strategy"],
            one["budget"],
            f"{one['tokens']:.0f}",
            one["rival"],
            f"{one['rival_tokens']:.0f}",
            f"{one['difference']:+.1%} {_interval(one['interval'], '+.1%')}",
            f"{one['p']:.3f}",
            f"{one['holm']:.3f}",
            _size(one["detectable"]) if one["detectable"] else "",
            one["verdict"],
        )
        for one in compared
    ]
    return (*columns, "verdict"), rows


def curve_cells(curves: Sequence[Mapping[str, Any]]) -> Table:
    names = [name for name in ("pass", "maj", "best") if name in curves[0]]
    columns = ("k", "tokens", *(f"{name}@k [95 %]" for name in names))
    return columns, [
        (
            str(row["k"]),
            f"{row['tokens']:.0f}",
            *(f"{row[name]:.1%} {_interval(row[f'{name}_interval'])}" for name in names),
        )
        for row in curves
    ]


def scorer_line(pool: Mapping[str, Any]) -> str:
    """The pool in a sentence, and how well its scorer tells right from wrong."""
    classes = ", ".join(f"{share:.1%} {kind}" for kind, share in pool["classes"].items() if share)
    told = f"{pool['samples']} attempts a question of {pool['tokens']:.0f} tokens on average: {classes}."
    if pool["scorer"] is None:
        return told
    quality = pool["scorer"]["quality"]
    if quality is None:
        return f"{told} Scorer {pool['scorer']['name']}: no AUC, for all attempts are right, or all wrong."
    auc = f"AUC {quality['auc']:.3f} {_interval(quality['interval'], '.3f')}"
    return f"{told} Scorer {pool['scorer']['name']}: {auc} over {quality['samples']} attempts."


def _interval(bounds: Sequence[float], form: str = ".1%") -> str:
    return f"[{bounds[0]:{form}}, {bounds[1]:{form}}]"


def _missing(classes: Mapping[str, float]) -> str:
    return ", ".join(
        f"{share:.0%} {kind}" for kind, share in classes.items() if kind not in ("right", "wrong") and share
    )
