"""docs/results.md: what the studies found, in tables and sentences made from their figures alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from headrace.reason.evaluation.chart import chart
from headrace.reason.evaluation.report import COLUMNS, cells, curve_cells, scorer_line, table

Told = Mapping[str, Any]
"""One study's file: study, date, commit, machine, store, figures."""

HEADER = """# Better answers for the same tokens?

<!-- Generated: python benchmarks/better_answers.py --page -->

Which strategies give more right answers than self-consistency within the same budget of decoded tokens, which show no
difference and which are worse. Everything below is made from
[benchmarks/results/better_answers](../benchmarks/results/better_answers); [evaluation.md](evaluation.md) says how such
figures come about, [better_answers.toml](../benchmarks/better_answers.toml) what was asked. No strategy and no scorer
saw a gold answer but in the oracle runs, which stand apart.

*Better* and *worse*: the 95 % paired interval of the difference lies above or below zero. *Holm* marks those whose
exact test (McNemar, on the runs as they were drawn) holds at 5 % once corrected for all comparisons of their study. "No
difference shown" is not "no difference": the smallest one that the questions would find four times in five is given.
`{n}` grows with the budget, in attempts that it pays; `{half}` is half of it.
"""

Cell = tuple[str, str]


def page(told: Sequence[Told]) -> str:
    """The whole page as Markdown, the same for the same files in any order."""
    ordered = sorted(told, key=lambda one: (one["study"]["section"], one["study"]["kind"], one["study"]["name"]))
    parts = [HEADER]
    for section, members in groupby(ordered, key=lambda one: str(one["study"]["section"])):
        found = list(members)
        parts.append(f"## {section}\n")
        baselines = [one for one in found if one["study"]["kind"] == "baseline"]
        parts += [_baselines(baselines)] if baselines else []
        parts += [_study(one) for one in found if one["study"]["kind"] == "comparison"]
    return "\n".join(parts).rstrip() + "\n"


def figure(told: Told) -> str:
    """Accuracy against tokens as SVG, one line a strategy whatever its width."""
    rows = [{**row, "strategy": row["called"]} for row in told["figures"]["rows"]]
    return chart(rows, f"{told['study']['task']} with {told['study']['model']}")


# -- tables ----------------------------------------------------------------------------------------


def _baselines(found: Sequence[Told]) -> str:
    """How often one attempt is right: by this the tasks were chosen."""
    rows = []
    for one in found:
        row = one["figures"]["rows"][0]
        study = one["study"]
        accuracy = f"{_share(row['accuracy'])} {_interval(row['interval'])}"
        rows.append((study["task"], str(study["seed"]), str(row["questions"]), accuracy, f"{row['decode_tokens']:.0f}"))
    columns = ("task", "seed", "questions", "right [95 %]", "tokens")
    first = found[0]
    said = f"One attempt a question with {first['study']['model']}, by which the tasks below were chosen."
    return f"### Baselines\n\n{said}\n\n{table(columns, rows)}\n\n{_footing(first)}\n"


def _study(told: Told) -> str:
    figures = told["figures"]
    parts = [f"### {told['study']['name']}", _settings(told)]
    parts += [told["study"]["note"]] if told["study"]["note"] else []
    parts += [_scorer(figures), _verdicts(figures), _answered(figures["rows"])]
    parts.append(f"![accuracy against decode tokens](figures/{told['study']['name']}.svg)")
    parts += ["Right, with its 95 % interval:", _wide(figures["rows"], _accuracy)]
    if figures["comparisons"]:
        against = (
            f"Difference from `{figures['baseline']}` at the same budget, paired by question, with its 95 % interval:"
        )
        parts += [against, _wide(figures["comparisons"], _difference)]
    if figures["pool"] is not None:
        parts += ["Any k of the pool's attempts:", table(*curve_cells(figures["pool"]["curves"]))]
    if figures["oracle"]:
        parts += ["Oracle runs, whose scorer sees the gold answers: bounds, no results.", _full(figures["oracle"])]
    parts += [_folded("Every row with its cost", _full(figures["rows"])), _footing(told)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _wide(entries: Sequence[Told], cell: Any) -> str:
    """A line a strategy, a column a budget, in the order of the study."""
    budgets = list(dict.fromkeys(entry["budget"] for entry in entries))
    names = list(dict.fromkeys(entry["called"] for entry in entries))
    found = {(entry["called"], entry["budget"]): cell(entry) for entry in entries}
    rows = [(f"`{name}`", *(found.get((name, budget), "") for budget in budgets)) for name in names]
    return table(("strategy", *budgets), rows)


def _accuracy(row: Told) -> str:
    return f"{_share(row['accuracy'])} {_interval(row['interval'])}"


def _difference(one: Told) -> str:
    low, high = one["interval"]
    mark = {"better": "**better**", "worse": "worse", "no difference shown": ""}[one["verdict"]]
    mark += ", Holm" if mark and one["holm"] < 0.05 else ""
    return f"{100 * one['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] {mark}".rstrip()


def _full(rows: Sequence[Told]) -> str:
    return table(COLUMNS, cells(rows))


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


# -- sentences -------------------------------------------------------------------------------------


def _settings(told: Told) -> str:
    study, settings, count = told["study"], told["figures"]["settings"], told["figures"]["questions"]
    return (
        f"{study['model']} on `{study['task']}`: {count} questions, seed {study['seed']}, temperature "
        f"{study['temperature']:g}, at most {settings['max_tokens']} tokens an attempt, profile {settings['profile']}, "
        f"scorer {study['scorer'] or 'none'}."
    )


def _scorer(figures: Told) -> str:
    return "" if figures["pool"] is None else f"The pool: {scorer_line(figures['pool'])}"


def _verdicts(figures: Told) -> str:
    """What the comparisons say, one line a verdict, and what they could have shown."""
    compared = figures["comparisons"]
    if not compared:
        return ""
    lines = [f"Against `{figures['baseline']}` at equal budgets, {len(compared)} comparisons:", ""]
    budgets = len({one["budget"] for one in compared})
    for verdict in ("better", "worse", "no difference shown"):
        names = _by_strategy([one for one in compared if one["verdict"] == verdict], budgets)
        lines.append(f"- {verdict}: {names or 'none'}.")
    least = [one["detectable"] for one in compared if one["detectable"]]  # none where two are the same everywhere
    if least:
        lines.append(f"- smallest difference found four times in five: {_span(least)}.")
    return "\n".join(lines)


def _by_strategy(compared: Sequence[Told], budgets: int) -> str:
    """Each strategy once, with its budgets; with Holm in brackets where that holds too."""
    told: dict[str, list[tuple[str, str]]] = {}
    for one in compared:
        holm = " (Holm)" if one["verdict"] != "no difference shown" and one["holm"] < 0.05 else ""
        told.setdefault(one["called"], []).append((one["budget"], holm))
    return "; ".join(f"`{name}` at {_places(where, budgets)}" for name, where in told.items())


def _places(where: Sequence[tuple[str, str]], budgets: int) -> str:
    marks = {holm for _, holm in where}
    if 1 < len(where) == budgets and len(marks) == 1:
        return "every budget" + marks.pop()
    return ", ".join(budget + holm for budget, holm in where)


def _answered(rows: Sequence[Told]) -> str:
    """How many runs ended without an answer, and in which strategies most did."""
    missing: dict[str, list[tuple[float, str, str]]] = {}
    for row in rows:
        for kind in ("unparsed", "timeout", "budget"):
            if row["classes"][kind] > 0:
                missing.setdefault(kind, []).append((row["classes"][kind], row["called"], row["budget"]))
    if not missing:
        return "Every run gave an answer."
    told = []
    for kind, found in missing.items():
        share, name, budget = max(found)
        told.append(f"{kind} in {len(found)} of {len(rows)} rows, most in `{name}` at {budget} ({_share(share)})")
    return f"Without an answer: {'; '.join(told)}."


def _footing(told: Told) -> str:
    store = told["store"]
    return (
        f"Run of {told['date']} at `{told['commit']}` on {told['machine']}; "
        f"samples {store['name']}, sha256 {store['sha256'][:16]}…"
    )


def _share(value: float) -> str:
    return f"{value:.1%}"


def _interval(bounds: Sequence[float]) -> str:
    return f"[{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]"


def _span(values: Sequence[float]) -> str:
    return _share(min(values)) if min(values) == max(values) else f"{_share(min(values))} to {_share(max(values))}"
