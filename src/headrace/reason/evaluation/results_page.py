"""docs/results.md: what the studies found, in tables and sentences made from their figures alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from headrace.reason.evaluation.chart import chart
from headrace.reason.evaluation.report import COLUMNS, cells, curve_cells, scorer_line, table
from headrace.reason.evaluation.table import VERDICTS

Told = Mapping[str, Any]
"""One study's file: study, date, commit, machine, store, figures; `again`: date and commit of figures that were made
later from the same samples; `probe`: what it said of questions held out; `shared`: by study, questions asked again."""
LIKELIEST = "adaptive_best_of_n(n=1)"

HEADER = """# Better answers for the same tokens?

<!-- Generated: python benchmarks/better_answers.py --page -->

Which strategies give more right answers than self-consistency for the same number of drawn tokens, which show no
difference and which are worse. Everything below is made from
[benchmarks/results/better_answers](../benchmarks/results/better_answers); [evaluation.md](evaluation.md) says how such
figures come about, [better_answers.toml](../benchmarks/better_answers.toml) what was asked. No strategy and no scorer
saw a gold answer but in the oracle runs, which stand apart.

A budget is a bound, and strategies spend more or less of it. So each is compared with the vote among as many
independent attempts as its own tokens, on average over the questions, would have paid for: the mean over every choice
of k attempts from a stored pool, and between two whole k by lot. A vote of 2 is right as often as one attempt, for a
tie goes to the first. What drew more than the whole pool is compared with all of it and cannot be called better; what
drew less than an attempt is compared with one and cannot be called worse; where it would be, it is listed as *unequal
tokens* (2 % are allowed). Tokens are those that are drawn, a scorer's too; with what is read (prompts, examples, a
scorer's looks) they stand as *total* with every row.

*Better* and *worse*: the 95 % paired interval of the difference lies above or below zero. *Holm* marks those whose p (a
sign-flip test on the questions' differences) holds at 5 % once corrected for all comparisons of their study. "No
difference shown" is not "no difference": the smallest one that the questions would find four times in five is given.
`{n}` grows with the budget, in attempts that it pays; `{half}` is half of it.
"""

ORACLE = (
    "Oracle runs, whose scorer knows what is right (on `arith` each step, which is not the same as the answer): no "
    "results. What choosing among k attempts could reach at most is pass@k."
)


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
        shared = ", ".join(f"{count} by {name}" for name, count in one.get("shared", {}).items()) or "none"
        tokens = f"{row['decode_tokens']:.0f}"
        rows.append((study["task"], str(study["seed"]), str(row["questions"]), accuracy, tokens, shared))
    columns = ("task", "seed", "questions", "right [95 %]", "tokens", "asked again")
    first = found[0]
    said = (
        f"One attempt a question with {first['study']['model']}, by which the tasks below were chosen. *Asked again*: "
        f"so many of the questions are, word for word, among those of a study below, whose accuracy is then no "
        f"independent second look."
    )
    return f"### Baselines\n\n{said}\n\n{table(columns, rows)}\n\n{_footing(first)}\n"


def _study(told: Told) -> str:
    figures = told["figures"]
    parts = [f"### {told['study']['name']}", _settings(told)]
    parts += [told["study"]["note"], _likeliest(told), _scorer(told), _verdicts(figures), _answered(figures["rows"])]
    parts.append(f"![accuracy against decode tokens](figures/{told['study']['name']}.svg)")
    parts += ["Right, with its 95 % interval, and tokens drawn a question:", _wide(figures["rows"], _accuracy)]
    if figures["comparisons"]:
        against = f"Difference from {figures['baseline']}, paired by question, with its 95 % interval; and that vote:"
        parts += [against, _wide(figures["comparisons"], _difference)]
    if figures["pool"] is not None:
        parts += ["Any k of the pool's attempts:", table(*curve_cells(figures["pool"]["curves"]))]
    if figures["oracle"]:
        parts += [ORACLE, _full(figures["oracle"])]
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
    return f"{_share(row['accuracy'])} {_interval(row['interval'])}; {row['decode_tokens']:.0f}"


def _difference(one: Told) -> str:
    low, high = one["interval"]
    mark = {"better": " **better**", "worse": " worse", "unequal tokens": " unequal"}.get(one["verdict"], "")
    beside = one["rival"] + (f" ({one['rival_tokens']:.0f} tokens)" if one["verdict"] == "unequal tokens" else "")
    return f"{100 * one['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]{mark}{_holm(one)}; {beside}"


def _holm(one: Told) -> str:
    return ", Holm" if one["verdict"] in ("better", "worse") and one["holm"] < 0.05 else ""


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


def _likeliest(told: Told) -> str:
    """How far the attempts fall behind the likeliest one, where a row is that one alone."""
    figures = told["figures"]
    row = next((row for row in figures["rows"] if row["called"] == LIKELIEST), None)
    if row is None:
        return ""
    sampled, warm = _share(figures["pool"]["curves"][0]["pass"]), f"{told['study']['temperature']:g}"
    return (
        f"One attempt at temperature {warm} is right in {sampled}, the likeliest one (`{LIKELIEST}`) in "
        f"{_share(row['accuracy'])}."
    )


def _scorer(told: Told) -> str:
    """The pool and its scorer; of a probe also what it learned from, and what it was worth before this study."""
    pool, learned = told["figures"]["pool"], told.get("probe")
    if pool is None or learned is None:
        return "" if pool is None else f"The pool: {scorer_line(pool)}"
    end, half = (f"{learned[part]['auc']:.3f} {_aucs(learned[part]['interval'])}" for part in ("end", "half"))
    return (
        f"The pool: {scorer_line(pool)} The probe learned from {learned['attempts']} attempts at "
        f"{learned['questions']} questions; held out, its AUC over those is {end} at an attempt's end and "
        f"{half} half-way."
    )


def _aucs(bounds: Sequence[float]) -> str:
    return f"[{bounds[0]:.3f}, {bounds[1]:.3f}]"


def _verdicts(figures: Told) -> str:
    """What the comparisons say, one line a verdict, and what they could have shown."""
    compared = figures["comparisons"]
    if not compared:
        return ""
    lines = [f"Against {figures['baseline']}, {len(compared)} comparisons:", ""]
    budgets = len({one["budget"] for one in compared})
    for verdict in VERDICTS:
        names = _by_strategy([one for one in compared if one["verdict"] == verdict], budgets)
        lines += [f"- {verdict}: {names or 'none'}."] if names or verdict != VERDICTS[-1] else []
    least = [one["detectable"] for one in compared if one["detectable"]]  # none where two are the same everywhere
    if least:
        lines.append(f"- smallest difference found four times in five: {_span(least)}.")
    return "\n".join(lines)


def _by_strategy(compared: Sequence[Told], budgets: int) -> str:
    """Each strategy once, with its budgets; with Holm in brackets where that holds too."""
    told: dict[str, list[tuple[str, str]]] = {}
    for one in compared:
        told.setdefault(one["called"], []).append((one["budget"], " (Holm)" if _holm(one) else ""))
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
    store, again = told["store"], told.get("again")
    later = f"figures of {again['date']} at `{again['commit']}`; " if again else ""
    return (
        f"Run of {told['date']} at `{told['commit']}` on {told['machine']}; {later}"
        f"samples {store['name']}, sha256 {store['sha256'][:16]}…"
    )


def _share(value: float) -> str:
    return f"{value:.1%}"


def _interval(bounds: Sequence[float]) -> str:
    return f"[{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]"


def _span(values: Sequence[float]) -> str:
    return _share(min(values)) if min(values) == max(values) else f"{_share(min(values))} to {_share(max(values))}"
