"""docs/evidence.md, generated from the systems file, the claims and their committed results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from headrace.evidence.registry import code_of, list_claims, load_results, states
from headrace.evidence.systems import STATES, State, System, load_systems, system
from headrace.spec.claim import Claim, Clause, Evidence

HEADER = """# Evidence

<!-- Generated: headrace evidence page --output docs/evidence.md -->

Headrace unites {count} published systems. Each is to become a claim that anyone can run: clause by clause what has
to hold for it to work here, with the figure that was found, or `open` and why. A null result is published too.

A system climbs **planned → built → exact → effect** (or **modelled**). *Built*: its claim runs, but a clause is
open or failed. *Exact* (grade E): equalities, bijections, oracles, formulas. *Effect* (F): better than the named
baseline at equal budget, the confidence interval above zero. *Modelled* (M): supported by a simulator or a count,
the hardware being absent. A state counts only when all clauses of its grade and of the grades before it passed in
a full run, and a mutant of the mechanism failed.

SmolLM2 is SmolLM2-135M-Instruct, MiniLM is all-MiniLM-L6-v2, Q is a 0.5B model of the Qwen class; "here" means on
the machine that a result names.

Now: {tally}.
"""


CHANGED = " The claim's code has changed since."
UNKNOWN = " Which code judged it was not recorded."


def page(results: Mapping[str, Evidence] | None = None) -> str:
    """The whole page as Markdown; `results` default to the stored ones."""
    systems, found = load_systems(), load_results() if results is None else results
    state = states(systems, found)
    counts = Counter(state.values())
    tally = ", ".join(f"{counts[name]} {name}" for name in STATES if counts[name])
    claims = {claim.system: claim for claim in list_claims()}
    parts = [HEADER.format(count=len(systems), tally=tally), "## The systems\n", _table(systems, state, claims)]
    parts.append("\n## The claims\n")
    parts += [_section(claim, state[claim.system], found.get(claim.id)) for claim in claims.values()]
    parts.append(_when(systems, claims))
    return "\n".join(parts).rstrip() + "\n"


def _table(systems: tuple[System, ...], state: Mapping[int, State], claims: Mapping[int, Claim]) -> str:
    lines = ["| # | system | what it contributes | lives in | proof | state |", "| --: | --- | --- | --- | --- | --- |"]
    for row in systems:
        name = f"[`{row.id}`](#{row.id})" if row.number in claims else f"`{row.id}`"
        cells = (str(row.number), f"{name}: {row.title}", row.contributes, ", ".join(row.lives_in))
        lines.append(_row(*cells, " ".join(row.grades), f"**{state[row.number]}**"))
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _section(claim: Claim, state: State, evidence: Evidence | None) -> str:
    row = system(claim.system)
    lines = [f"### {row.id}", "", f"System {row.number}, *{row.title}*. State: **{state}**. {claim.title}", ""]
    lines += [f"Baseline: {claim.baseline} Budget: {claim.budget}", ""]
    lines += [f"Run it again: `headrace evidence run {claim.id} --size full --save`", ""]
    if evidence is None:
        return "\n".join([*lines, "Not run yet.", ""])
    lines += ["| | clause | check | outcome | figure |", "| --: | --- | --- | --- | --- |"]
    lines += [_clause(str(number), clause) for number, clause in enumerate(evidence.clauses, 1)]
    lines += [_clause("mutant", evidence.null_run), "", _footing(claim, evidence), ""]
    return "\n".join(lines)


def _clause(label: str, clause: Clause) -> str:
    return _row(label, clause.text, clause.check, clause.status, clause.figure)


def _footing(claim: Claim, evidence: Evidence) -> str:
    low, high = evidence.interval or (0.0, 0.0)
    span = f" Main interval (95 %): {low:.3g} to {high:.3g}." if evidence.interval else ""
    run = f"{evidence.size.capitalize()} run of {evidence.date} at `{evidence.commit}` on {evidence.machine}."
    changed = "" if evidence.code == code_of(claim) else CHANGED if evidence.code else UNKNOWN
    return f"{run}{span}{changed}"


def _when(systems: tuple[System, ...], claims: Mapping[int, Claim]) -> str:
    """The clauses of the systems that have no claim yet."""
    lines = ["## When the others will work here", ""]
    for row in systems:
        if row.number not in claims:
            clauses = " ".join(f"({number}) {clause}" for number, clause in enumerate(row.clauses, 1))
            lines.append(f"- **{row.number} `{row.id}`** {clauses}")
    return "\n".join(lines)
