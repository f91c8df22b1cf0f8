"""`headrace evidence`: the published systems as claims that can be run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from headrace.cli.generation import Json
from headrace.cli.show import note, print_json, print_table, write

if TYPE_CHECKING:
    from headrace.spec.claim import Evidence

app = typer.Typer(help="List, run and publish the claims about published systems.", no_args_is_help=True)

ClaimId = Annotated[str, typer.Argument(help="A claim's id or its system's number, of `headrace evidence list`.")]
Size = Annotated[Literal["quick", "full"], typer.Option(help="How many cases: a share of the counts, or all.")]
Save = Annotated[bool, typer.Option("--save", help="Keep the result under results/evidence.")]
Output = Annotated[Path | None, typer.Option(help="Write the page to this file instead of stdout.")]


@app.command("list")
def list_(json: Json = False) -> None:
    """List every system with its state, and the claims that can be run."""
    rows = listing()
    if json:
        print_json(rows)
        return
    cells = [(str(r["system"]), r["id"], r["state"], r["claim"] or "", r["title"]) for r in rows]
    print_table(("#", "system", "state", "claim", "about"), cells)


def listing() -> list[dict[str, Any]]:
    from headrace.evidence.registry import list_claims, load_results, states
    from headrace.evidence.systems import load_systems

    systems, claims = load_systems(), {claim.system: claim.id for claim in list_claims()}
    state = states(systems, load_results())
    return [
        {"system": s.number, "id": s.id, "state": state[s.number], "claim": claims.get(s.number), "title": s.title}
        for s in systems
    ]


@app.command()
def run(claim: ClaimId, size: Size = "quick", save: Save = False, json: Json = False) -> None:
    """Run a claim clause by clause; exit code 1 where a clause fails or the mutant goes unnoticed."""
    from headrace.evidence.registry import run_claim, save_result

    evidence = run_claim(claim, size)
    if json:
        print_json(asdict(evidence))
    else:
        show(evidence)
    if save:
        note(f"Kept in {save_result(evidence)}")
    if any(clause.status == "failed" for clause in (*evidence.clauses, evidence.null_run)):
        raise typer.Exit(1)


def show(evidence: Evidence) -> None:
    cells: list[tuple[str, ...]] = [(c.status, c.check, c.text, c.figure) for c in evidence.clauses]
    mutant = evidence.null_run
    cells.append((mutant.status, "mutant", mutant.text, mutant.figure))
    print_table(("outcome", "check", "clause", "figure"), cells)
    note(f"{evidence.claim}, {evidence.size} run on {evidence.machine}, {evidence.date} at {evidence.commit}")


@app.command()
def page(output: Output = None) -> None:
    """Print the evidence page (docs/evidence.md)."""
    from headrace.evidence.page import page as evidence_page

    text = evidence_page()
    if output is None:
        write(text)
    else:
        output.write_text(text, encoding="utf-8")
