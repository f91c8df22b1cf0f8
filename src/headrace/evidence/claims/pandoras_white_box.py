"""System 32, Pandora's White-Box: who trained on what, told with the weights at hand, and what can be read back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

from msgspec.structs import replace

from headrace.evidence.systems import system
from headrace.evidence.verdict import every_mutant, judged
from headrace.privacy.attacks.recovery import Share
from headrace.privacy.audit.blind import LIMIT
from headrace.privacy.audit.report import Report
from headrace.privacy.audit.small import small_base, small_trial
from headrace.privacy.audit.trial import Bench, Cell, Reports, cells_of, read_trial, run_trial
from headrace.spec.claim import Claim, Clause, Evidence, Size

ROW = system(32)
TOLD, FOUND, CONTROL, FLIPS = ROW.clauses
SEEDS = (0, 1, 2)
LEAST_TPR, LEAST_FOUND = 0.9, 0.5

Numbers = dict[str, float | int | str | list[float]]
Cells = Mapping[Cell, Reports]


def run(size: Size) -> Evidence:
    """A full run takes the cells that `benchmarks/audit.py` has kept, and runs those that are missing."""
    cells = _quick() if size == "quick" else run_trial(read_trial(), SEEDS)
    name = (
        "a tiny model, 16 epochs over 40 documents" if size == "quick" else f"{read_trial().base}, seeds {len(SEEDS)}"
    )
    trained = [reports for cell, reports in cells.items() if cell.variant == "trained"]
    members, control = ([reports[which] for reports in trained] for which in ("members", "control"))
    clauses = (told(members, name, strictly=size == "full"), found(members, name), at_chance(trained), flips(cells))
    what = "Mutants: documents it never saw in the members' place; a threshold that lets everything pass"
    null_run = every_mutant(what, [told(control, name), found(control, name), flips(_lenient(cells))])
    worst = min((report.by("loss-ratio").tpr for report in members), key=lambda share: share.value)
    return Evidence(CLAIM.id, clauses, null_run, _numbers(cells), (worst.low, worst.high), "", size)


def _quick() -> dict[Cell, Reports]:
    """One seed on the tiny model, trained anew."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(TemporaryDirectory()))
        bench = opened.enter_context(Bench.load(small_trial(small_base(folder / "base")), folder))
        return {cell: bench.run(cell) for cell in cells_of(SEEDS[:1])}


# -- clauses ---------------------------------------------------------------------------------------


def told(members: Sequence[Report], name: str, strictly: bool = True) -> Clause:
    """Of every seed. A tiny model learns all by heart before it can be read back: there both AUCs end at 1."""
    rates, gains = [report.by("loss-ratio").tpr for report in members], [report.gain for report in members]
    more = all(gain is not None and (gain.low > 0 or (not strictly and gain.value >= 0)) for gain in gains)
    holds = more and all(rate.value >= LEAST_TPR for rate in rates)
    above = ", ".join(f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]" for gain in gains if gain is not None)
    figure = f"TPR at 1 % FPR {_each(rates)}; AUC {above} over plain loss; {name}"
    return judged(TOLD, holds, figure, "effect")


def found(members: Sequence[Report], name: str) -> Clause:
    rates = [report.extracted for report in members]
    holds = all(rate is not None and rate.value > LEAST_FOUND for rate in rates)
    shown = ", ".join(f"{rate.value:.2f} [{rate.low:.2f}, {rate.high:.2f}]" for rate in rates if rate is not None)
    return judged(
        FOUND, holds, f"{shown} of endings found from what stands before them, token for token; {name}", "effect"
    )


def at_chance(trained: Sequence[Reports]) -> Clause:
    """Over all seeds together: documents that an adapter never saw, and members under the untrained model."""
    never_seen = [reports["control"].by("loss-ratio") for reports in trained]
    untrained = [reports["base"].by("loss") for reports in trained]
    pooled = {
        "AUC of documents never seen": _pooled([one.auc for one in never_seen]),
        "their TPR": _pooled([one.tpr for one in never_seen]),
        "AUC under the untrained model": _pooled([one.auc for one in untrained]),
    }
    luck = [report.extracted.value for reports in trained if (report := reports["control"]).extracted is not None]
    blind = [reports["members"].blind for reports in trained]
    passed = all(reports["control"].passed and reports["members"].blind.value < LIMIT for reports in trained)
    holds = passed and not any(luck) and all(share.contains_chance for share in pooled.values())
    figure = ", ".join(f"{what} {_shown(share)}" for what, share in pooled.items())
    figure += f"; AUC of never seen by seed {_each([one.auc for one in never_seen])}"
    figure += f"; {', '.join(f'{value:.3f}' for value in luck)} extracted by luck; texts alone: AUC {_each(blind)}"
    return judged(CONTROL, holds, figure, "effect")


def flips(cells: Cells) -> Clause:
    """Every seed fails as trained, and passes in a variant that still has learned more than its base knew."""
    seeds, shown, holds = dict.fromkeys(cell.seed for cell in cells), list[str](), True
    for seed in seeds:
        mine = {cell.variant: reports["members"] for cell, reports in cells.items() if cell.seed == seed}
        better = [report for variant, report in mine.items() if variant != "trained" and _passes_wiser(report)]
        holds = holds and not mine["trained"].passed and bool(better)
        shown += [
            f"{variant} {report.worst:.2f} at held-out loss {report.losses.held_out:.2f}"
            for variant, report in mine.items()
        ]
        base = mine["trained"].losses.base_held_out
        shown.append(f"untrained loss {base:.2f}" if base is not None else "")
    threshold = next(iter(cells.values()))["members"].threshold
    return judged(FLIPS, holds, f"largest share told or extracted, threshold {threshold:g}: {', '.join(shown)}")


def _passes_wiser(report: Report) -> bool:
    base = report.losses.base_held_out
    return report.passed and base is not None and report.losses.held_out < base


def _lenient(cells: Cells) -> dict[Cell, Reports]:
    return {
        cell: {name: replace(report, threshold=1.0) for name, report in reports.items()}
        for cell, reports in cells.items()
    }


# -- figures ---------------------------------------------------------------------------------------


def _pooled(shares: Sequence[Share]) -> Share:
    """The mean of independent shares; half-widths add as roots of squares."""
    value, count = fmean(share.value for share in shares), len(shares)
    low = math.sqrt(sum((share.value - share.low) ** 2 for share in shares)) / count
    high = math.sqrt(sum((share.high - share.value) ** 2 for share in shares)) / count
    return Share(value, value - low, value + high, shares[0].chance)


def _numbers(cells: Cells) -> Numbers:
    numbers = Numbers()
    for cell, reports in cells.items():
        for name, report in reports.items():
            at = f"{cell.variant} {cell.seed} {name}"
            numbers |= {f"{at} {one.attack} tpr": one.tpr.value for one in report.told}
            numbers |= {f"{at} {one.attack} auc": one.auc.value for one in report.told}
            numbers |= {f"{at} blind auc": report.blind.value, f"{at} held-out loss": report.losses.held_out}
            if report.extracted is not None:
                numbers[f"{at} extracted"] = report.extracted.value
    return numbers


def _each(shares: Sequence[Share]) -> str:
    return ", ".join(map(_shown, shares))


def _shown(share: Share) -> str:
    return f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}]"


CLAIM = Claim(
    ROW.id,
    ROW.number,
    "With the weights at hand it is told which canaries an adapter learned, and most are read on from half of them.",
    "Plain loss; documents of the same generator that were never trained on; the untrained model.",
    ("exact", "effect"),
    "About 35 CPU-minutes a seed for a full run, three seeds; cells of `benchmarks/audit.py` are taken where kept.",
    run,
)
