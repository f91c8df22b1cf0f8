"""Claims of prompting strategies in their quick size, and the instruments they rest on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import product
from pathlib import Path
from random import Random

import pytest

from headrace.evidence.answered import Answered
from headrace.evidence.asking import Asked, ask, share
from headrace.evidence.claims import cop, cqot, medprompt, thinksum
from headrace.evidence.frontier import dominated, frontier
from headrace.evidence.scripted import says, scripted_engine
from headrace.evidence.systems import system
from headrace.reason.choices import LETTERS
from headrace.reason.solve import Order
from headrace.reason.tasks.lettered import question
from headrace.reason.working import worked_out
from headrace.spec.budget import Budget
from headrace.spec.claim import Evidence


def judge(found: Evidence, number: int) -> dict[str, str]:
    assert tuple(clause.text for clause in found.clauses) == system(number).clauses
    assert found.null_run.status == "passed", found.null_run.figure
    assert not [clause for clause in found.clauses if clause.status == "failed"]
    return {clause.text: clause.status for clause in found.clauses}


def test_medprompt_quick() -> None:
    status = judge(medprompt.run("quick"), 93)
    assert status[medprompt.UNBIASED] == "passed" and status[medprompt.TOGGLES] == "open"


def test_perception_quick() -> None:
    status = judge(cop.run("quick"), 88)
    assert status[cop.KEEPS] == status[cop.ORACLE] == "passed" and status[cop.BEATS] == "open"


def test_thinksum_quick() -> None:
    found = thinksum.run("quick")
    status = judge(found, 81)
    assert set(status.values()) == {"open"} and found.numbers["furthest"] <= thinksum.TOLERANCE
    assert thinksum.summed().status == "passed" and thinksum.summed(wrong=True).status == "failed"


def test_critical_questions_quick() -> None:
    status = judge(cqot.run("quick"), 77)
    assert status[cqot.PIPELINE] == "passed" and status[cqot.FLAGS] == status[cqot.ACCURACY] == "open"


def test_a_critic_that_sees_the_fault_is_told_from_one_that_does_not() -> None:
    def seeing(text: str):
        before, asked, said = text.rpartition("Answer yes or no:")
        if not asked or said not in ("", " "):
            return says()(text)
        yes = 0.8 if before.count("Premise:") == 3 else 0.3
        return {" ": 1.0} if said == "" else {"y": yes, "n": 1 - yes}

    with scripted_engine(seeing) as engine:
        clause, numbers = cqot.flagged(engine, cqot._arguments(4), chat=False)
    assert "missing 1.00" in clause.figure and "step 0.50" in clause.figure and 0.5 < numbers["auc"] < 1


def test_dominated_is_what_brute_force_says() -> None:
    rng = Random(4)
    for _ in range(50):
        points = {str(i): (rng.randint(1, 5), rng.randint(1, 5) / 5) for i in range(6)}
        beaten = {
            a
            for a, b in product(points, points)
            if points[b] != points[a] and points[b][0] <= points[a][0] and points[b][1] >= points[a][1]
        }
        found = dominated(points)
        assert frontier(points) == points.keys() - beaten
        assert set(found) == beaten and all(by not in beaten for by in found.values())


def test_a_table_flags_what_is_dominated() -> None:
    def went(right: int, tokens: int) -> list[Asked]:
        return [Asked(place < right, "A", tokens, 0, 1) for place in range(10)]

    clause = medprompt.table({"cheap": went(5, 10), "dear": went(5, 90), "best": went(9, 50)})
    assert clause.status == "passed" and "dear 0.500" in clause.figure
    assert clause.figure.count("dominated by") == 1 and "dominated by best" in clause.figure


def always(letter: str):
    """A chain of thought and the same letter to every question, whether or not a chat template asks."""
    return says(("the letter.\n\n", f"Because. Answer: {letter}"), ("nothing else.\n\n", f"Answer: {letter}"))


@pytest.mark.parametrize("letter", "AC")
def test_worked_examples_are_those_that_were_right(letter: str) -> None:
    posed = [question(seed) for seed in range(24)]
    posed = [replace(item, task=replace(item.task, chat=False)) for item in posed]
    with scripted_engine(always(letter)) as engine:
        kept = asyncio.run(worked_out(engine, posed, Order(seed=0)))
        found = ask(engine, posed, "medprompt(few_shot=False, n=1, chain=False, shuffle=False)")
        cut = ask(engine, posed, "single", budgets=[Budget(tokens=3)] * len(posed))
    right = [item for item in posed if item.gold == letter]
    assert [item.stem for item in kept] == [item.task.meta["choices"].stem for item in right]
    assert {item.chain for item in kept} == {"Because."} and {item.answer for item in kept} == {letter}
    assert sum(asked.right for asked in found) == len(right) and letter in LETTERS
    assert share(found).startswith(f"{len(right) / 24:.3f} [")
    assert all(asked.drawn <= 3 and asked.calls == 1 for asked in cut)


def test_a_claim_that_was_killed_asks_only_what_is_missing(tmp_path: Path) -> None:
    posed = [replace(item, task=replace(item.task, chat=False)) for item in map(question, range(4))]
    path, strategy = tmp_path / "claim.jsonl", "medprompt(few_shot=False, n=1, chain=False, shuffle=False)"
    with scripted_engine(always("A")) as engine, Answered(path) as answered:
        first = ask(engine, posed, strategy, answered=answered)
        ask(engine, posed[:1], strategy, answered=answered, label="other")
    *lines, _, end = path.read_bytes().split(b"\n")
    assert len(lines) == 4 and not end
    path.write_bytes(b"\n".join(lines[:2]) + b"\n" + lines[2][:9])
    with scripted_engine(always("B")) as engine, Answered(path) as answered:
        again = ask(engine, posed, strategy, answered=answered)
    assert sorted(one.answer for one in again) == ["A", "A", "B", "B"] and {one.answer for one in first} == {"A"}
    with Answered(path) as answered:
        assert answered.get("", strategy, 0.7, 0) is not None and answered.get("other", strategy, 0.7, 0) is None


def test_a_family_that_falls_is_not_made_up_for_by_the_others() -> None:
    def asked(*rights: bool) -> list[Asked]:
        return [Asked(right, None, 1, 1, 1) for right in rights]

    none, won, lost = [False] * 6, [True] * 6, [True, *[False] * 5]
    direct = asked(*none, *none, *lost)
    for last, status in ((none, "failed"), (won, "passed")):
        found = {thinksum.DIRECT: [direct] * 2, thinksum.OURS: [asked(*won, *won, *last)] * 2}
        assert thinksum.accuracy_gain(found)[1][0] > 0, "all families together gain"
        numbers = {"m by family": thinksum.by_family(found, 6)}
        clause = thinksum.beaten({"m": thinksum.family_gains(found, 6)}, numbers, "six each")
        assert clause.status == status and "odd 0.00 to 1.00 (+1.000" in clause.figure
        shown = found | {thinksum.BEHIND: [asked(*won, *none, *none)] * 2}
        hard = thinksum.beaten(
            {"m": thinksum.family_gains(shown, 6)}, {"m by family": thinksum.by_family(shown, 6)}, ""
        )
        assert hard.status == "failed" and "odd 1.00 to 1.00" in hard.figure, "the better way of the two counts"


def test_questions_shown_are_of_the_same_kind_and_none_that_is_asked() -> None:
    for family, make in thinksum.FAMILIES.items():
        asked = [thinksum.behind(make(seed, 1), 1) for seed in range(24)]
        shown = asked[0].task.meta["examples"]
        assert [item.answer for item in shown.nearest("anything", 4)] == [*"DCBA"]
        assert not {item.question for item in shown.items} & {posed.task.question for posed in asked}, family


def test_perception_has_to_be_right_more_often_and_cheaper_than_either_rival() -> None:
    def went(right: int, tokens: int, calls: int) -> list[Asked]:
        return [Asked(place < right, "true", tokens, 0, calls) for place in range(12)]

    posed = [cop.world(seed, 1).posed for seed in range(12)]

    def race(chain: list[Asked], stepwise: list[Asked]) -> tuple[bool, bool]:
        found = cop.Race("m", posed, went(12, 20, 1), {"chain of thought": chain, cop.STEPWISE: stepwise})
        assert cop.told(found).startswith("m, 12 worlds: perception 1.000") and "calls" in cop.told(found)
        return found.more_right, found.cheaper

    assert race(went(4, 50, 1), went(5, 90, 2)) == (True, True)
    assert race(went(4, 50, 1), went(12, 90, 2)) == (False, True)
    assert race(went(4, 20, 1), went(5, 90, 2)) == (True, False), "as many tokens are not fewer"
    assert race(went(4, 50, 1), went(5, 90, 1)) == (True, True), "less than one call there is not"
    assert race(went(4, 50, 1), [*went(5, 90, 1)[:-1], *went(1, 90, 0)[:1]]) == (True, False)


def test_a_question_that_stepwise_selection_leaves_behind_is_not_held_against_it() -> None:
    left = cop.needed(Asked(True, "true", 200, 9, 4), 60)
    assert (left.prompt, left.drawn, left.calls) == (140, 9, 3)
    used = Asked(False, "false", 120, 5, 2)
    assert cop.needed(used, 60) == used
