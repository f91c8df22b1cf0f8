"""`headrace privacy`: what each profile costs and what each party still learns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli import attack
from headrace.cli import generation as g
from headrace.cli.attacked import ScoringKey, check_threshold, known_ids, opened, options
from headrace.cli.flags import with_flags
from headrace.cli.show import print_json, write
from headrace.privacy.extra import check_attacks
from headrace.spec.errors import InvalidRequest

app = typer.Typer(no_args_is_help=True, help="What a deployment gives away, measured by attacks on it.")
app.add_typer(attack.app, name="attack")

Subject = Annotated[str, typer.Argument(help="A veiled folder; or a plain model, which is veiled here for the report.")]
Public = Annotated[str | None, typer.Option(help="The public model that an attacker of the folder would take.")]
Known = Annotated[
    list[Path], typer.Option("--known", help="Text (or ids) that an attacker without the public weights has.")
]
Tokens = Annotated[int, typer.Option(min=2, help="With --known: ids that the veiled model writes for the attack.")]
Runs = Annotated[int, typer.Option(min=0, help="Alternations by which the slowdown is measured; 0: it is not.")]
Results = Annotated[Path | None, typer.Option(help="Folder of result files (default: this checkout's).")]
Svg = Annotated[Path | None, typer.Option(help="Write slowdown against recovery to this file.")]
Threshold = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Fail where the key shows more than this recovered under the veil."),
]


@dataclass(frozen=True, slots=True)
class ReportKey(ScoringKey):
    key: Annotated[
        Path | None, typer.Option(help="Key file of the veiled folder to score by, or to veil the plain model with.")
    ] = None


@app.command()
@with_flags(scoring=ReportKey)
def report(
    model: Subject,
    public: Public = None,
    known: Known = [],  # noqa: B006
    tokens: Tokens = 30_000,
    runs: Runs = 5,
    results: Results = None,
    svg: Svg = None,
    threads: attack.Threads = None,
    threshold: Threshold = None,
    json: g.Json = False,
    scoring: ReportKey = ReportKey(),
) -> None:
    """Slowdown and recovery of plain, veil, split and mpc: the veil's measured here, the others from result files."""
    check_attacks()
    from headrace.privacy.figure import figure
    from headrace.privacy.measure import measured, veiled_for

    if results is not None and not results.is_dir():
        raise InvalidRequest(f"{results} is no folder; give one of result files, or leave --results out.", "results")
    if svg is not None and not svg.parent.is_dir():
        raise InvalidRequest(f"{svg.parent} is no folder; make it, or write --svg somewhere else.", "svg")
    subject, plain = opened(model), None if public is None else opened(public)
    own = known_ids(known, plain or subject) if known else None
    with veiled_for(subject, plain, scoring.held()) as case:
        check_threshold(threshold, case.truth is not None)
        made = measured(case, own, tokens, runs, results, options(threads))
    if json:
        print_json(made.to_json())
    else:
        write(made.text())
    if svg is not None:
        svg.write_text(figure(made), encoding="utf-8")
    if threshold is not None:
        made.check(threshold)
