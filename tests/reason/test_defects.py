"""Sixteen defects of other libraries, and the tests that would see each of them here."""

from __future__ import annotations

import ast
import asyncio
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from headrace.cli.main import app
from headrace.reason.evaluate import Design, evaluate
from headrace.reason.evaluation.filling import How
from headrace.reason.evaluation.store import Store
from headrace.reason.solve import replay
from headrace.reason.view import preferences
from headrace.spec.events import StepEvent
from headrace.spec.sampling import Sampling
from headrace.spec.trace import Trace
from reason.toy import TextScorer, solved, toy_engine, usable
from reason.toy_items import toy_items

TESTS = Path(__file__).parent
REASON = TESTS.parents[1] / "src" / "headrace" / "reason"

SEEN_BY: dict[str, tuple[str, ...]] = {
    "1 its_hub: approaches are compared by the length of their text": (
        "test_operators.py::test_ranking_follows_the_order_and_nothing_else",
    ),
    "2 its_hub: particles are weighted by the generator's own likelihood": (
        "test_operators.py::test_confidence_is_no_evidence",
        "test_particles.py::test_the_strategys_evidence_is_unbiased",
    ),
    "3 its_hub: finished particles are weighted again at every step, no estimate of Z": (
        "test_smc.py::test_a_finished_particle_keeps_its_weight",
        "test_smc.py::test_the_odds_filter_drifts_away_from_both_targets",
        "test_smc.py::test_evidence_is_unbiased_and_the_posterior_comes_closer",
    ),
    "4 its_hub: stopping at what is completed first favours short answers": (
        "test_agreement.py::test_stopping_is_unbiased_in_length",
        "test_deepconf.py::test_it_ends_after_the_first_wave_whose_votes_agree",
    ),
    "5 its_hub: a token without alternatives counts as certain": (
        "test_confidence.py::test_what_is_unknown_says_nothing",
    ),
    "6 its_hub: one failed sample ends all others; requests share a mutable model; no usage": (
        "test_run.py::test_a_refused_attempt_leaves_the_answer_to_the_others",
        "test_resume.py::test_the_same_seed_gives_the_same_tree_beside_other_work",
        "../server/test_compute.py::test_the_field_gives_the_tree_that_a_call_in_process_gives",
    ),
    "7 probabilistic-inference-scaling: later steps lose the sampling, particles run one by one": (
        "test_defects.py::test_every_draw_has_the_sampling_of_its_run",
        "test_defects.py::test_attempts_run_together",
    ),
    "8 search-and-learn: prompts share one pool of beams, DVTS has no usage, settings of steps are ignored": (
        "test_resume.py::test_the_same_seed_gives_the_same_tree_beside_other_work",
        "test_budgets.py::test_every_strategy_stays_within_every_budget",
        "test_search.py::test_a_search_with_an_exact_value_finds_the_optimum",
    ),
    "9 Archon: middle layers cannot run, several outputs end in a random one": (
        "test_operators.py::test_a_pipeline_through_two_middle_layers_runs",
        "test_votes.py::test_ties_go_to_the_first_seen_and_are_recorded",
    ),
    "10 optillm: votes group texts, not answers; a search looks one level deep; an unreadable rating is 0.5": (
        "test_mathematics.py::test_groups_are_classes_of_an_equivalence",
        "test_search.py::test_a_search_with_an_exact_value_finds_the_optimum",
        "test_operators.py::test_an_unreadable_rating_is_no_rating",
    ),
    "11 optillm and others: a model's program runs with the server's rights": (
        "test_defects.py::test_nothing_that_a_model_wrote_is_run",
    ),
    "12 optillm: prompts are missing from the usage": (
        "test_operators.py::test_every_token_of_an_operator_is_in_the_usage",
        "test_budgets.py::test_every_strategy_stays_within_every_budget",
    ),
    "13 Bag-of-Tricks: the worst candidate has no vote, duplicates are never found, a setting is overwritten": (
        "test_votes.py::test_the_worst_candidate_keeps_its_say",
        "test_votes.py::test_duplicates_are_found",
        "test_votes.py::test_topk_and_dvts",
    ),
    "14 openr: scores that do not fit their steps become 0, a beam without an end fails": (
        "test_strategy.py::test_scores_that_are_not_one_number_each_are_refused",
        "test_run.py::test_a_prompt_beyond_the_budget_ends_the_run_and_leaves_nothing_open",
    ),
    "15 llm-reasoners: the viewer posts traces to a third party": (
        "test_defects.py::test_no_data_leave_the_machine",
    ),
    "16 dspy: attempts run one after another, and a counter shrinks from call to call": (
        "test_defects.py::test_attempts_run_together",
        "test_operators.py::test_operators_over_many_candidates_share_their_steps",
        "test_defects.py::test_a_second_call_is_like_the_first",
    ),
}  # fmt: skip


def test_every_defect_has_its_tests() -> None:
    assert [int(told.split()[0]) for told in SEEN_BY] == list(range(1, 17))
    for where in {where for named in SEEN_BY.values() for where in named}:
        file, _, name = where.partition("::")
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        assert name in {found.name for found in tree.body if isinstance(found, ast.FunctionDef)}, where


@pytest.mark.parametrize("name", sorted(usable()))
def test_every_draw_has_the_sampling_of_its_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for what a strategy declares: greedy looks ahead, logprobs, and a first attempt that is greedy."""
    given = Sampling(temperature=1.2, top_k=9, min_p=0.001)
    with toy_engine() as engine:
        extend, seen = engine._extend, list[Sampling]()

        def noted(*how: Any) -> Any:
            _, _, stop, sampling = how[:4]
            if stop.tokens != 0:  # else it computes the prompt and draws nothing
                seen.append(sampling)
            return extend(*how)

        monkeypatch.setattr(engine, "_extend", noted)
        solved(engine, name, sampling=given)
    drawn = [sampling for sampling in seen if sampling != Sampling(temperature=0)]
    assert drawn and all(replace(sampling, temperature=1.2, logprobs=None) == given for sampling in drawn)
    if name != "adaptive_best_of_n":
        assert {sampling.temperature for sampling in drawn} <= {0, 1.2}


TOGETHER = (
    "self_consistency(n=6)",
    "best_of_n(n=6)",
    "weighted_vote(n=6)",
    "adaptive_consistency(n=6, wave=6)",
    "deepconf(n=6, warm=6)",
    "early_prune(n=6)",
    "sequential_revision(chains=6)",
    "step_best_of_n(n=6)",
    "step_beam(width=6, expand=3)",
    "dvts(width=6, expand=3)",
    "rebase(width=6)",
    "smc(n=6)",
)


@pytest.mark.parametrize("name", TOGETHER)
def test_attempts_run_together(name: str) -> None:
    with toy_engine() as engine:
        steps: list[StepEvent] = []
        engine.events.listen(steps.append)
        solved(engine, name)
    assert max(step.sampled_tokens for step in steps) == 6, "one engine step draws for all six"


def test_a_second_call_is_like_the_first() -> None:
    with toy_engine() as engine:
        first, second = (solved(engine, "best_of_n(n=3) | critique_and_revise") for _ in range(2))
    assert first.trace_id == second.trace_id


@pytest.fixture
def cut_off(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A machine without a network; the list has what was tried."""
    tried: list[str] = []

    def refuse(name: str) -> Any:
        def called(*how: Any, **more: Any) -> Any:
            tried.append(name)
            raise OSError(f"{name} is cut off")

        return called

    for name in ("connect", "connect_ex", "sendto", "sendmsg"):
        monkeypatch.setattr(socket.socket, name, refuse(name))
    monkeypatch.setattr(socket, "getaddrinfo", refuse("getaddrinfo"))
    yield tried


def test_no_data_leave_the_machine(cut_off: list[str], tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    with toy_engine() as engine:
        solved(engine, "step_beam | critique | fuse", trace=path)
        with Store(tmp_path / "samples.jsonl", {}) as store:
            design = Design(toy_items(2), ("self_consistency(n=2)", "step_beam"))
            asyncio.run(evaluate(engine, design, How(scorer=TextScorer()), store))
    asyncio.run(replay(Trace.load(path)))
    list(preferences(Trace.load(path)))
    for view in ("view", "pairs", "replay"):
        done = CliRunner().invoke(app, ["trace", view, str(path)])
        assert done.exit_code == 0, done.output
    assert cut_off == []
    with pytest.raises(OSError, match="cut off"):
        socket.create_connection(("127.0.0.1", 9))
    assert cut_off, "the watch sees a connection"


def test_nothing_that_a_model_wrote_is_run() -> None:
    """Programs of a model need a sandbox, which is not built; until then no strategy may run one."""
    for path in sorted(REASON.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        called = {
            call.func.id for call in ast.walk(tree) if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
        }
        assert not called & {"exec", "eval", "compile", "__import__"}, path
        imported = {alias.name for found in ast.walk(tree) if isinstance(found, ast.Import) for alias in found.names}
        assert "subprocess" not in imported or path.name == "killable.py", path
