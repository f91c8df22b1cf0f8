"""Claims by id, results on disk, states that are never higher than what was shown, and a page that is fresh."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.evidence.page import page
from headrace.evidence.registry import (
    code_of,
    derive_state,
    find_claim,
    list_claims,
    load_results,
    project_root,
    run_claim,
    save_result,
    states,
)  # fmt: skip
from headrace.evidence.systems import System, load_systems, system
from headrace.spec.claim import Check, Clause, Evidence
from headrace.spec.errors import HeadraceError, InvalidRequest

CHECKS: tuple[Check, ...] = ("exact", "exact", "effect")
ROW = System(1, "one", "One", "method", "It is.", ("engine",), ("E", "F"), ("A.", "B.", "C."), "planned")


def evidence(statuses: str = "ppp", checks: tuple[Check, ...] = CHECKS, **changes: object) -> Evidence:
    names = {"p": "passed", "f": "failed", "o": "open"}
    clauses = tuple(
        Clause(text, names[s], "1", check)  # type: ignore[arg-type]
        for text, s, check in zip(ROW.clauses, statuses, checks, strict=True)
    )
    whole = Evidence("one", clauses, Clause("m", "passed", "caught"), {"n": 1}, (0.5, 1.5), "here", "full", "abc", "d")
    return replace(whole, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (None, "planned"),
        (evidence("ppp"), "effect"),
        (evidence("ppo"), "exact"),
        (evidence("ppf"), "exact"),
        (evidence("pfp"), "built"),
        (evidence("pop"), "built"),
        (evidence("ppp", size="quick"), "built"),
        (evidence("ppp", null_run=Clause("m", "failed", "unnoticed")), "built"),
        (evidence("ppp", clauses=evidence().clauses[:2]), "built"),
        (evidence("ppo", ("exact", "exact", "modelled")), "exact"),
        (evidence("ppp", ("effect", "effect", "effect")), "built"),
        (evidence("ppo", ("exact", "effect", "modelled")), "exact"),
    ],
)
def test_state_is_never_higher_than_what_passed(found: Evidence | None, state: str) -> None:
    assert derive_state(ROW, found) == state


def test_modelled_needs_its_own_grade() -> None:
    row = replace(ROW, grades=("E", "M"))
    assert derive_state(row, evidence("ppp", ("exact", "exact", "modelled"))) == "modelled"
    assert derive_state(row, evidence("ppf", ("exact", "exact", "modelled"))) == "exact"


def test_results_survive_the_disk(tmp_path: Path) -> None:
    path = save_result(evidence(), tmp_path)
    assert path.name == "one.json"
    assert load_results(tmp_path) == {"one": evidence()}
    path.write_text("{}")
    with pytest.raises(HeadraceError, match="headrace evidence run one"):
        load_results(tmp_path)
    assert load_results(tmp_path / "none") == {}


def test_claims_are_found_by_id() -> None:
    claims = list_claims()
    assert {18, 20, 48} <= {claim.system for claim in claims}
    assert all(find_claim(claim.id) is claim and system(claim.system).id == claim.id for claim in claims)
    with pytest.raises(InvalidRequest, match="procbench"):
        find_claim("no-such-claim")
    with pytest.raises(InvalidRequest):
        run_claim("no-such-claim")


def test_a_claim_without_result_is_built() -> None:
    found = states(load_systems(), {})
    claimed = {claim.system for claim in list_claims()}
    assert {number for number, state in found.items() if state == "built"} == claimed
    assert {number for number, state in found.items() if state == "planned"} == set(range(1, 103)) - claimed


def test_stored_results_belong_to_claims_and_their_clauses() -> None:
    results = load_results()
    assert set(results) <= {claim.id for claim in list_claims()}
    for id, stored in results.items():
        assert [c.text for c in stored.clauses] == list(system(find_claim(id).system).clauses), f"run {id} again"
        assert stored.commit and stored.date and stored.machine
        assert all(clause.figure for clause in (*stored.clauses, stored.null_run))


def test_the_page_is_fresh() -> None:
    """Fails when systems.json, a claim or a result changed: `headrace evidence page --output docs/evidence.md`."""
    stored = project_root() / "docs" / "evidence.md"
    assert stored.read_text(encoding="utf-8") == page()


def test_the_page_shows_every_system_and_every_figure() -> None:
    text = page({})
    assert all(f"| {row.number} | " in text for row in load_systems())
    assert text.count("Not run yet.") == len(list_claims())
    claim = find_claim("sarathi")
    clauses = tuple(Clause(t, "open", f"because | {n}") for n, t in enumerate(system(18).clauses))
    shown = page({"sarathi": evidence(claim="sarathi", clauses=clauses)})
    assert all(f"because \\| {number}" in shown for number in range(len(clauses)))
    assert f"headrace evidence run {claim.id}" in shown and shown != text


def test_a_result_older_than_its_claim_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = find_claim("sarathi")
    now = code_of(claim)
    assert now == code_of(claim) and len({code_of(one) for one in list_claims()}) == len(list_claims())
    for code, words in ((now, ""), ("0" * 16, "code has changed since"), ("", "was not recorded")):
        shown = page({"sarathi": evidence(claim="sarathi", code=code)})
        assert [said for said in ("code has changed since", "was not recorded") if said in shown] == [words] * bool(
            words
        )
    monkeypatch.syspath_prepend(str(tmp_path))
    digests = []
    for line in (
        "import headrace",
        "from headrace.evidence.depth import DEPTH",
        "from headrace.evidence.stage import Stage",
    ):
        (tmp_path / "judge.py").write_text(line, encoding="utf-8")
        digests.append(code_of(replace(claim, run=ran_by("judge"))))
    assert len(set(digests)) == 3


def ran_by(module: str) -> Callable[[str], Evidence]:
    def run(size: str) -> Evidence:
        raise AssertionError

    run.__module__ = module
    return run
