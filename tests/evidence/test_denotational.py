"""The claim of system 79 passes whole on few cases, and every broken piece fails its own clause."""

from __future__ import annotations

import pytest

from headrace.evidence import finite
from headrace.evidence.claims import denotational_validation as claim
from headrace.evidence.systems import system
from headrace.reason.blocks import Block

FEW = finite.populations(8, 3)


def test_all_clauses_pass_and_the_mutants_do_not() -> None:
    evidence = claim.run("quick")
    assert tuple(clause.text for clause in evidence.clauses) == system(79).clauses
    assert {clause.status for clause in evidence.clauses} == {"passed"}
    assert evidence.null_run.status == "passed"


@pytest.mark.parametrize("wrong", finite.WRONG, ids=lambda block: block.name)
def test_a_wrong_resampler_fails_the_laws(wrong: Block) -> None:
    clause, _ = claim.check_laws(FEW, [wrong])
    assert clause.status == "failed" and wrong.name in clause.figure


def test_a_missing_jacobian_fails_greens_clause() -> None:
    assert claim.check_green().status == "passed"
    assert claim.check_green(jacobian=1).status == "failed"


def test_a_harmless_resampler_catches_nothing() -> None:
    """Were the wrong ones right, the clause that they are caught would fail."""
    assert claim.check_wrong([population for population in FEW if len(population.weights) == 1]).status == "failed"


def test_a_foreign_stage_fails_the_assembly() -> None:
    def twin(block: Block) -> Block:
        return Block(block.name, lambda population, choice: block.run(population, choice), block.law)

    clause = claim.check_smc([(3, 2, 2)], twin)
    assert clause.status == "failed" and "0 of" in clause.figure and "resample" in clause.figure
